"""launch/tpu_vm.sh against a stand-in gcloud: what it calls, in which order, and what it makes of the answers."""

import pathlib
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PLACE = ["--project", "my-project", "--zone", "us-east5-b", "--name", "aqa"]
RUN = [
    *("tpu_vm.sh", "run", *PLACE, "--topology", "v6e-16", "--config", "configs/micro.py"),
    *("--workdir", "gs://bucket/runs/aqa", "--poll_seconds", "0", "--patience", "2"),
]


def verbs_over_ssh(cloud) -> list[str]:
    """What the workers were asked to do, looks left out."""
    verbs = [call[-1].split("worker.sh ")[-1].split()[0] for call in cloud.calls("queued-resources ssh")]
    return [verb for verb in verbs if verb not in ("status", "log")]


def test_from_nothing_to_complete_and_back_to_nothing(cloud):
    cloud.state["creations"] = [["CREATING", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]]
    result = cloud.run(*RUN, "--spot")
    (create,) = cloud.calls("queued-resources create")
    assert create[1:] == [
        *("compute", "tpus", "queued-resources", "create", "aqa", "--zone=us-east5-b", "--project=my-project"),
        *("--accelerator-type=v6e-16", "--runtime-version=v2-alpha-tpuv6e", "--node-id=aqa", "--spot"),
    ]
    assert verbs_over_ssh(cloud) == ["setup", "start"]
    assert cloud.state["slice"] is None
    assert cloud.has("gs://bucket/runs/aqa/launch/complete")
    assert "loss 2.5" in result.stderr
    assert "Nothing is left of aqa" in result.stderr


def test_dry_run_prints_what_a_smooth_run_calls(cloud):
    cloud.state.update(attempts=[["exited 0"]], log="lines 0")
    flags = ["--slices", "2", "--records", "gs://bucket/records", "--model", "gs://models/converted/"]
    flags += ["--config.data.pack=True", '--config.model.llm=a name\'s "own" $way']
    printed = cloud.dry_run(*RUN, *flags)
    assert cloud.calls() == []
    cloud.run(*RUN, *flags)
    called = cloud.calls()
    assert [words for words in printed if words[0] == "gcloud"] == called
    assert [words[0] for words in printed].count("git") == 1


def test_a_second_launch_of_a_complete_run_creates_nothing(cloud):
    cloud.put("gs://bucket/runs/aqa/launch/complete")
    result = cloud.run(*RUN)
    assert "is complete" in result.stderr and "costing" not in result.stderr
    assert "another --workdir" in result.stderr, "training would refuse to go on in this one"
    assert not cloud.calls("create")
    cloud.state["slice"] = active_slice()
    assert "the slice aqa may be running, and costing" in cloud.run(*RUN).stderr
    assert not cloud.calls("delete"), "it may be another run's"


def test_a_mark_that_cannot_be_written_keeps_no_slice(cloud):
    cloud.state["failures"] = [["complete gs://", 99, "503"]]
    assert "warning: gs://bucket/runs/aqa/launch/complete could not be written" in cloud.run(*RUN).stderr
    assert cloud.state["slice"] is None


def test_several_slices_are_one_request(cloud):
    cloud.run(*RUN, "--slices", "2")
    (create,) = cloud.calls("queued-resources create")
    assert {"--node-count=2", "--node-prefix=aqa"} <= set(create)
    assert all("--node=all" in call for call in cloud.calls("worker.sh start"))


def test_a_preempted_slice_is_replaced_and_the_run_goes_on(cloud):
    cloud.state["creations"] = [["ACTIVE"], ["WAITING_FOR_RESOURCES", "ACTIVE"]]
    cloud.state["attempts"] = [["running -", "preempted"], ["running -", "exited 0"]]
    result = cloud.run(*RUN, "--max_errors", "1")
    assert len(cloud.calls("queued-resources create")) == 2
    assert verbs_over_ssh(cloud) == ["setup", "start"] * 2
    assert "interrupted (1 so far)" in result.stderr


def test_preempted_nodes_of_an_active_request_count_as_a_preemption(cloud):
    cloud.state["attempts"] = [["running -", "nodes preempted"]]
    result = cloud.run(*RUN, "--max_errors", "1", "--max_interruptions", "0", expect=1)
    assert "interrupted (1 so far)" in result.stderr
    assert cloud.state["slice"] is None


def test_nodes_preempted_during_the_installation_count_as_a_preemption(cloud):
    cloud.state["preempted_setups"] = 1
    result = cloud.run(*RUN, "--max_errors", "1")
    assert "interrupted (1 so far)" in result.stderr and "(error" not in result.stderr
    assert len(cloud.calls("queued-resources create")) == 2


@pytest.mark.parametrize(
    "look",
    [
        "exited 75",
        ["exited 75", "exited 1", "exited 1", "exited 0"],
        ["rebooted -", "exited 1", "exited 1", "exited 1"],
    ],
)
def test_an_interrupted_trainer_is_started_again_on_the_same_slice(cloud, look):
    cloud.state["attempts"] = [["running -", look], ["exited 0"]]
    cloud.run(*RUN, "--max_errors", "1")
    assert len(cloud.calls("queued-resources create")) == 1
    assert verbs_over_ssh(cloud) == ["setup", "start"] * 2


@pytest.mark.parametrize(
    "looks",
    [
        ["running -", "stopped 75"],
        ["running -", ["stopped 75", "stopped -", "stopped 1", "exited 0"]],
        ["exited 1", "stopped 1"],
    ],
)
def test_what_a_person_stopped_is_not_started_again(cloud, looks):
    cloud.state["attempts"] = [looks]
    result = cloud.run(*RUN, expect=1)
    assert "the run was stopped" in result.stderr and "may be running, and costing" in result.stderr
    assert verbs_over_ssh(cloud).count("start") == 1 and cloud.state["slice"] is not None


def test_a_stopped_run_goes_on_when_it_is_launched_again(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["stopped 75"]
    cloud.run(*RUN)
    assert verbs_over_ssh(cloud) == ["setup", "start"]


@pytest.mark.parametrize("states", [["DELETING"], ["ABSENT"]], ids=str)
@pytest.mark.parametrize("before", [[], ["WAITING_FOR_RESOURCES"], ["ACTIVE"]], ids=str)
def test_a_slice_that_a_person_deleted_is_not_bought_again(cloud, before, states):
    cloud.state["creations"] = [before + states]
    cloud.state["attempts"] = [["exited 1"]]
    result = cloud.run(*RUN, expect=1)
    assert "the slice aqa was deleted by somebody else" in result.stderr
    assert len(cloud.calls("queued-resources create")) == 1 and not cloud.calls("queued-resources delete")


def test_a_slice_deleted_under_its_trainers_is_not_bought_again(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["attempts"] = [["running -", "deleted"]]
    assert "the slice aqa was deleted by somebody else" in cloud.run(*RUN, expect=1).stderr
    assert not cloud.calls("queued-resources create")


def test_a_slice_found_on_its_way_out_is_waited_for_and_replaced(cloud):
    cloud.state["slice"] = active_slice() | {"states": ["DELETING", "DELETING", "ABSENT"]}
    cloud.run(*RUN)
    assert len(cloud.calls("queued-resources create")) == 1


def test_errors_are_bounded_and_the_slice_is_deleted(cloud):
    cloud.state["attempts"] = [["exited 1"]] * 3
    result = cloud.run(*RUN, "--max_errors", "2", expect=1)
    assert len(cloud.calls("worker.sh start")) == 2
    assert "ValueError: the reason" in result.stderr
    assert cloud.state["slice"] is None
    assert not cloud.has("gs://bucket/runs/aqa/launch/complete")


def test_errors_are_forgiven_where_the_run_got_on(cloud):
    cloud.state["attempts"] = [["exited 1"]] * 5
    cloud.state["saved"] = [10, 20, 30, 30, 30]  # the newest checkpoint after each
    result = cloud.run(*RUN, "--max_errors", "2", expect=1)
    assert result.stderr.count("(error 1;") == 3 and result.stderr.count("(error 2;") == 1
    assert verbs_over_ssh(cloud).count("start") == 4


def test_kept_after_errors_the_slice_is_named_as_a_cost(cloud):
    cloud.state["attempts"] = [["exited 1"]]
    result = cloud.run(*RUN, "--max_errors", "1", "--keep", expect=1)
    assert cloud.state["slice"] is not None
    assert "may be running, and costing" in result.stderr


def test_an_error_on_a_slice_that_is_going_away_is_a_preemption(cloud):
    cloud.state["creations"] = [["ACTIVE", "SUSPENDING", "SUSPENDED"], ["ACTIVE"]]
    cloud.state["attempts"] = [["exited 1"], ["exited 0"]]
    cloud.run(*RUN, "--max_errors", "1")
    assert len(cloud.calls("queued-resources create")) == 2


def test_workers_that_outlive_a_failed_one_are_ended(cloud):
    uneven = ["exited 1", "running -", "running -", "running -"]
    cloud.state["attempts"] = [[uneven] * 4 + ["exited 1"]]
    cloud.run(*RUN, "--max_errors", "1", expect=1)
    assert "end" in verbs_over_ssh(cloud)


def test_a_failed_request_is_tried_again_then_given_up(cloud):
    cloud.state["creations"] = [["FAILED"], ["FAILED"]]
    result = cloud.run(*RUN, "--max_errors", "2", expect=1)
    assert "no capacity of that kind" in result.stderr
    assert len(cloud.calls("queued-resources create")) == 2
    assert cloud.state["slice"] is None


def test_a_suspended_slice_from_before_is_replaced(cloud):
    cloud.state["slice"] = {"name": "aqa", "type": "v6e-16", "states": ["SUSPENDED"], "nodes": ["aqa"]}
    cloud.run(*RUN)
    assert len(cloud.calls("queued-resources delete")) == 2  # the old one, and the new one at the end


def test_a_request_found_in_the_queue_is_named_as_a_cost(cloud):
    cloud.state["slice"] = active_slice() | {"states": ["WAITING_FOR_RESOURCES"]}
    cloud.state["failures"] = [["queued-resources list", 99, "503", 1]]
    assert "may be running, and costing" in cloud.run(*RUN, "--keep", expect=1).stderr


def active_slice(kind="v6e-16"):
    return {"name": "aqa", "type": kind, "states": ["ACTIVE"], "nodes": ["aqa"], "now": "ACTIVE"}


def test_launched_again_it_follows_the_running_trainer(cloud):
    cloud.run(*RUN, "--keep")
    (start,) = cloud.calls("worker.sh start")
    cloud.forget_calls()
    (cloud.folder / "gs/bucket/runs/aqa/launch/complete").unlink()
    cloud.state["workers"] = ["running -", "running -", "exited 0"]
    result = cloud.run(*RUN)
    assert "running already" in result.stderr
    assert verbs_over_ssh(cloud) == []
    assert cloud.has("gs://bucket/runs/aqa/launch/complete")


def test_a_start_that_one_worker_missed_is_made_even(cloud):
    """Not a stranger: it never started."""
    cloud.run(*RUN, "--keep")
    cloud.forget_calls()
    (cloud.folder / "gs/bucket/runs/aqa/launch/complete").unlink()
    cloud.state["workers"] = [["running -", "running -", "running -", "absent -"]] * 4 + ["exited 75"]
    cloud.state["attempts"] = [["running -", "exited 0"]]
    cloud.run(*RUN, "--max_errors", "1")
    assert verbs_over_ssh(cloud) == ["end", "setup", "start"]
    assert cloud.has("gs://bucket/runs/aqa/launch/complete")


@pytest.mark.parametrize("verb", ["run", "stop"])
def test_another_account_s_trainer_is_neither_ended_nor_said_to_have_ended(cloud, verb):
    cloud.state.update(slice=active_slice(), workers=["foreign -"])
    words = RUN if verb == "run" else ["tpu_vm.sh", verb, *PLACE, "--poll_seconds", "0", "--patience", "2"]
    result = cloud.run(*words, expect=2)
    assert "trained by another account" in result.stderr and "--ssh_user" in result.stderr
    assert cloud.state["slice"] and not verbs_over_ssh(cloud)
    cloud.state["workers"] = []
    cloud.run(*RUN, "--ssh_user", "alice")
    assert all("alice@aqa" in call for call in cloud.calls("queued-resources ssh")[-4:])


def test_no_answer_for_a_while_deletes_nothing(cloud):
    cloud.state.update(slice=active_slice(), workers=["running -"])
    cloud.state["failures"] = [["queued-resources list", 3, "503"]]
    result = cloud.run(*RUN, expect=1)
    assert "gcloud does not answer about aqa" in result.stderr and "may be running, and costing" in result.stderr
    assert cloud.state["slice"] and not cloud.calls("delete")


def test_a_slice_that_trains_something_else_is_left_alone(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["running -"]
    cloud.state["run_id"] = "12345"
    result = cloud.run(*RUN, expect=2)
    assert "trains something else" in result.stderr
    assert not cloud.calls("delete")


def test_a_slice_of_another_kind_is_left_alone(cloud):
    cloud.state["slice"] = active_slice("v5litepod-8")
    assert "is a v5litepod-8, not a v6e-16" in cloud.run(*RUN, expect=2).stderr


def test_another_number_of_slices_is_left_alone(cloud):
    cloud.state["slice"] = active_slice()
    assert "--name aqa has 1 slices, not 2" in cloud.run(*RUN, "--slices", "2", expect=2).stderr
    cloud.state["slice"] = active_slice() | {"nodes": ["aqa-0", "aqa-1"]}
    assert "--name aqa has 2 slices, not 1" in cloud.run(*RUN, expect=2).stderr
    assert not verbs_over_ssh(cloud) and not cloud.calls("delete")


def test_where_one_of_the_slices_went_away_all_are_replaced(cloud):
    cloud.state["attempts"] = [["running -", "a slice gone"], ["exited 0"]]
    result = cloud.run(*RUN, "--slices", "2", "--max_errors", "2")
    assert "(error 1;" in result.stderr
    assert len(cloud.calls("queued-resources create")) == 2


def test_a_silent_slice_is_replaced_and_counts_as_an_error(cloud):
    cloud.state["attempts"] = [["running -", "silent"], ["exited 0"]]
    result = cloud.run(*RUN, "--max_errors", "2")
    assert "(error 1;" in result.stderr
    assert len(cloud.calls("queued-resources create")) == 2


def test_passing_failures_of_the_cloud_are_waited_out(cloud):
    cloud.state["failures"] = [
        ["queued-resources list", 2, "503"],
        ["tpu-vm list", 1, "503"],
        ["worker.sh status", 1, "255"],
        ["worker.sh log", 1, "255"],
    ]
    cloud.run(*RUN, "--max_errors", "1")


def test_an_outage_here_does_not_end_a_run_there(cloud):
    cloud.state["attempts"] = [["running -", "exited 0"]]
    cloud.state["failures"] = [["tpu-vm list", 9, "503", 2], ["queued-resources list", 9, "503", 2]]
    result = cloud.run(*RUN, "--max_errors", "1")
    assert "(error" not in result.stderr and len(cloud.calls("queued-resources create")) == 1
    assert [failure[1] for failure in cloud.state["failures"]] == [0, 0], "the outage was longer than --patience"


@pytest.mark.parametrize("flags", [[], ["--topology", "v6e-16"]])
def test_down_deletes_and_confirms(cloud, flags):
    cloud.state["slice"] = active_slice()
    cloud.state["stuck_deletions"] = 1
    result = cloud.run("tpu_vm.sh", "down", *PLACE, *flags, "--poll_seconds", "0", "--patience", "2")
    assert cloud.state["slice"] is None
    assert "Nothing is left of aqa" in result.stderr


def test_down_says_so_when_it_cannot_confirm(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["failures"] = [["queued-resources list", 99, "503"]]
    result = cloud.run("tpu_vm.sh", "down", *PLACE, "--poll_seconds", "0", "--patience", "2", expect=1)
    assert "COULD NOT CONFIRM" in result.stderr


STOP = ["tpu_vm.sh", "stop", *PLACE, "--poll_seconds", "0", "--patience", "2"]


def test_stop_waits_until_every_trainer_has_ended(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["running -", ["stopped 75", "running -", "stopped 75", "stopped 75"], "stopped 75"]
    assert "every trainer of aqa has ended" in cloud.run(*STOP, "--patience", "3").stderr
    assert verbs_over_ssh(cloud) == ["stop"]


def test_stop_ends_a_trainer_that_does_not_save(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["running -", "running -", "running -", "stopped -"]
    cloud.run(*STOP)
    assert verbs_over_ssh(cloud) == ["stop", "kill"]


def test_stop_waits_for_workers_that_answer_late(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["silent", "stopped 75"]
    cloud.run(*STOP)


@pytest.mark.parametrize("looks", [["silent"], [["stopped 75"] * 3], ["running -"]], ids=str)
def test_stop_says_so_when_it_cannot_confirm(cloud, looks):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = looks
    assert "COULD NOT CONFIRM" in cloud.run(*STOP, expect=1).stderr


def test_stop_of_what_is_not_there_confirms_nothing(cloud):
    result = cloud.run(*STOP, expect=1)
    assert "nothing was stopped" in result.stderr and not verbs_over_ssh(cloud)
    cloud.state["slice"] = active_slice() | {"nodes": []}
    assert "0 workers are listed" in cloud.run(*STOP, expect=1).stderr


def test_status_reports_slice_nodes_and_workers(cloud):
    cloud.state["slice"] = active_slice()
    cloud.state["workers"] = ["running -"]
    result = cloud.run("tpu_vm.sh", "status", *PLACE)
    assert "queued resource aqa: ACTIVE" in result.stdout
    assert "workers: 4 expected, 4 answer" in result.stdout


@pytest.mark.parametrize(
    "change, message",
    [
        (["--zone", "us-east5"], "not a region"),
        (["--zone", "us-south1-ai1"], "not a region"),
        (["--name", "Aqa_1"], "lower-case"),
        (["--topology", "v6e-12"], "no such slice"),
        (["--topology", "v5p-4"], "no such slice"),
        (["--topology", "h100-8"], "no such slice"),
        (["--slices", "0"], "whole number"),
        (["--config", "configs/absent.py"], "no such file"),
        (["--config", "/etc/hostname"], "must be a file of this checkout"),
        (["--config", "configs/ignored.py"], "git ignores this file"),
        (["--workdir", "/tmp/run"], "gs://BUCKET/FOLDER"),
        (["--workdir", "gs://bucket"], "gs://BUCKET/FOLDER"),
        (["--records", "bucket/records"], "gs://BUCKET/FOLDER"),
        (["--config.train.steps"], "--config.train.steps=VALUE"),
        (["--config.data.validation=records/valid"], "data.validation records/valid: not in a bucket"),
        (["--config.data.validation=('/gcs/bucket/a','/data/b')"], "data.validation /data/b: not in a bucket"),
        (["--config.data.train=/data/train"], "data.train /data/train: not in a bucket"),
        (["--config.model.checkpoint=converted"], "model.checkpoint converted: not in a bucket"),
        (["--spott"], "no such flag"),
        (["--spot=no"], "--spot=no: --spot takes no value"),
        (["--keep=false"], "--keep takes no value"),
        (["--dry_run=no"], "--dry_run takes no value"),
        (["--patience", "00"], "--patience 00: a whole number, at least 1"),
        (["--patience", "ten"], "--patience ten: a whole number, at least 1"),
        (["--project"], "needs a value"),
    ],
)
def test_wrong_inputs_end_before_any_call(cloud, change, message):
    (cloud.checkout / "configs/ignored.py").write_text("")
    result = cloud.run(*RUN, *change, expect=2)
    assert message in result.stderr
    assert not cloud.calls()


@pytest.mark.parametrize(
    "failing, message",
    [
        ("projects describe", "not found, or not yours"),
        ("accelerator-types describe", "not offered in us-east5-b"),
        ("buckets describe", "not found, or not readable"),
        ("ls gs://bucket/records/index.npz", "no index.npz"),
        ("ls gs://bucket/valid/index.npz", "data.validation gs://bucket/valid: no index.npz"),
        ("ls gs://models/converted", "no desta_jax.json"),
        ("storage cp", "cannot write"),
    ],
)
def test_what_the_cloud_refuses_ends_before_any_slice(cloud, failing, message):
    cloud.state["failures"] = [[failing, 1, "refused"]]
    flags = ["--records", "gs://bucket/records", "--model", "gs://models/converted"]
    cloud.put("gs://bucket/valid/index.npz")
    result = cloud.run(*RUN, *flags, "--config.data.validation=/gcs/bucket/valid", expect=2)
    assert message in result.stderr
    assert not cloud.calls("queued-resources create")


def test_zones_for_ai_alone_are_zones(cloud):
    cloud.run(*RUN, "--zone", "us-south1-ai1b")
    assert cloud.calls("queued-resources create", "--zone=us-south1-ai1b")


def test_numbers_that_begin_with_a_zero_are_decimal(cloud):
    cloud.state["attempts"] = [["exited 1"]] * 10
    result = cloud.run(*RUN, "--patience", "09", "--max_errors", "08", expect=1)
    assert "giving up after 8)" in result.stderr and "base" not in result.stderr


@pytest.mark.parametrize("path", ["/gcs/other/valid", "('/gcs/other/valid',)", '["gs://other/valid/"]'])
def test_the_validation_records_are_looked_at_and_their_bucket_mounted(cloud, path):
    cloud.put("gs://other/valid/index.npz")
    cloud.run(*RUN, f"--config.data.validation={path}")
    assert cloud.calls("storage ls gs://other/valid/index.npz") and cloud.calls("buckets describe gs://other")
    ((*_, setup),) = cloud.calls("worker.sh setup")
    assert setup.split()[-2:] == ["bucket", "other"]


def test_shards_without_an_index_are_looked_for_by_their_pattern(cloud):
    cloud.state["failures"] = [["index.npz", 1, "refused"]]
    cloud.run(*RUN, "--config.data.validation=/gcs/other/valid/*.tfrecord-*", "--dry_run")
    cloud.run(*RUN, "--config.data.validation=/gcs/other/valid/*.tfrecord-*", expect=2)
    assert cloud.calls("storage ls gs://other/valid/*.tfrecord-*")


def test_a_bucket_in_another_region_is_warned_about(cloud):
    cloud.state["location"] = "EUROPE-WEST4"
    assert "reading across regions" in cloud.run(*RUN).stderr


READY = ["--records", "gs://bucket/records", "--model", "gs://models/converted"]


@pytest.fixture
def installed(cloud):
    """A machine whose Python imports desta_jax."""
    (cloud.checkout / "desta_jax").symlink_to(ROOT / "desta_jax")
    (cloud.folder / "bin/python3").write_text(f'#!/bin/bash\nexec "{sys.executable}" "$@"\n')
    return cloud


@pytest.mark.parametrize(
    "flags, message",
    [
        ([*READY, "--config.trian.steps=1"], "trian.steps: no such key; did you mean train.steps?"),
        ([*READY, "--config.log.wandb_project=mine"], "log.wandb_project: the workers have no wandb"),
        ([*READY, "--config.train.batch_size=24"], "its 24 rows do not divide into 16 parts"),
        (READY[:2], "--model is needed"),
        (READY[2:], "--records is needed"),
        ([*READY, "--slices", "2", "--config.mesh.fsdp=32"], "mesh.data: 1 must be a multiple of the 2 slices"),
        ([*READY, "--config.evaluate.benchmarks=mmau=data/mmau"], "evaluate.benchmarks: answers go to a local disk"),
    ],
)
def test_what_training_would_refuse_is_found_here(installed, flags, message):
    assert message in installed.run(*RUN, *flags, expect=2).stderr
    assert not installed.calls()


CONFIG = "def get_config():\n    return {{'data': {{'validation': ('{}',)}}, 'mesh': {{'fsdp': 16}}}}\n"


def test_folders_that_the_config_file_names_are_checked_too(installed):
    config = installed.checkout / "configs/micro.py"
    config.write_text(CONFIG.format("records/valid"))
    result = installed.run(*RUN, *READY, expect=2)
    assert "data.validation records/valid: not in a bucket" in result.stderr
    assert not installed.calls()
    config.write_text(CONFIG.format("/gcs/other/valid"))
    assert "data.validation gs://other/valid: no index.npz" in installed.run(*RUN, *READY, expect=2).stderr
    installed.put("gs://other/valid/index.npz")
    installed.run(*RUN, *READY)
    ((*_, setup),) = installed.calls("worker.sh setup")
    assert setup.split()[-3:] == ["bucket", "models", "other"]


def test_a_mesh_that_splits_no_weights_is_noted(installed):
    assert "each chip holds the whole model" in installed.run(*RUN, *READY).stderr
    assert "each chip" not in installed.run(*RUN, *READY, "--config.mesh.fsdp=16", "--dry_run").stderr


def test_the_source_carries_uncommitted_work_and_says_so(cloud):
    (cloud.checkout / "new.py").write_text("")
    result = cloud.run(*RUN)
    assert "differs from commit" in result.stderr
    ((source,),) = [[call[-1] for call in cloud.calls("storage cp --no-clobber")]]
    assert "-changed-" in source


def test_a_model_in_the_checkout_is_not_sent_to_the_workers(cloud):
    with (cloud.checkout / "weights.bin").open("wb") as file:
        file.truncate(1)
        file.write(b"x" * 101 * 2**20)
    result = cloud.run(*RUN, expect=2)
    assert "101 MB of files" in result.stderr and "the largest is weights.bin" in result.stderr
    (cloud.checkout / "weights.bin").rename(cloud.checkout / "ignored.bin")
    cloud.run(*RUN)


def test_a_dry_run_writes_nothing_to_the_repository(cloud):
    (cloud.checkout / "new.py").write_text("")
    before = set(cloud.checkout.rglob("*"))
    assert "differs from commit" in cloud.run(*RUN, "--dry_run").stderr
    assert set(cloud.checkout.rglob("*")) == before


@pytest.mark.parametrize(
    "topology, accelerator, runtime",
    [
        ("v4-8", "v4-8", "tpu-ubuntu2204-base"),
        ("v5e-256", "v5litepod-256", "v2-alpha-tpuv5-lite"),
        ("v5litepod-16", "v5litepod-16", "v2-alpha-tpuv5-lite"),
        ("v5p-128", "v5p-128", "v2-alpha-tpuv5"),
        ("v6e-1", "v6e-1", "v2-alpha-tpuv6e"),
    ],
)
def test_each_generation_has_its_names(cloud, topology, accelerator, runtime):
    printed = cloud.dry_run(*RUN, "--topology", topology)
    (create,) = [words for words in printed if "queued-resources" in words and "create" in words]
    assert {f"--accelerator-type={accelerator}", f"--runtime-version={runtime}"} <= set(create)
