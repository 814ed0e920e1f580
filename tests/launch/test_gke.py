"""launch/gke.sh against a stand-in gcloud and kubectl, and the JobSet it writes."""

import re
import subprocess

import pytest
import yaml

PLACE = ["--project", "my-project", "--zone", "us-east5-b", "--name", "aqa", "--poll_seconds", "0", "--patience", "2"]
RUN = [
    *("gke.sh", "run", *PLACE, "--topology", "v6e-16", "--config", "configs/micro.py"),
    *("--workdir", "gs://bucket/runs/aqa"),
]


def jobset(cloud):
    _, jobset = yaml.safe_load_all(cloud.state["manifest"])
    return jobset


def test_from_nothing_to_complete_and_back(cloud):
    result = cloud.run(*RUN, "--spot")
    (pool,) = cloud.calls("node-pools create")
    assert {"--machine-type=ct6e-standard-4t", "--tpu-topology=4x4", "--max-nodes=4", "--num-nodes=0", "--spot"} <= set(
        pool
    )
    assert cloud.has("gs://bucket/runs/aqa/launch/complete")
    assert cloud.state["pools"] == {} and cloud.state["cluster"] == "desta-jax"
    assert "The cluster desta-jax itself" in result.stderr


def test_dry_run_prints_what_a_smooth_run_calls(cloud):
    # A dry run asks nothing, so it cannot know the project's number.
    cloud.state.update(jobset_attempts=[["0 Completed"]], project_number="PROJECT_NUMBER")
    flags = ["--slices", "2", "--records", "gs://models/records", "--with_cluster"]
    cloud.put("gs://models/records/index.npz")
    printed = cloud.dry_run(*RUN, *flags)
    assert cloud.calls() == []
    cloud.run(*RUN, *flags)
    assert [words for words in printed if words[0] != "git"] == cloud.calls()
    assert cloud.state["cluster"] is None


def test_the_jobset_asks_for_its_slices_and_counts_only_errors(cloud):
    cloud.run(*RUN, "--slices", "2", "--max_errors", "4")
    spec = jobset(cloud)["spec"]
    (job,) = spec["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    assert job["replicas"] == 2
    assert job["template"]["spec"]["parallelism"] == job["template"]["spec"]["completions"] == 4
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v6e-slice",
        "cloud.google.com/gke-tpu-topology": "4x4",
        "desta-jax-run": "aqa",
    }
    assert pod["containers"][0]["resources"]["limits"] == {"google.com/tpu": 4}
    assert spec["failurePolicy"]["maxRestarts"] == 3
    assert spec["failurePolicy"]["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    on_exit, on_disruption = job["template"]["spec"]["podFailurePolicy"]["rules"]
    assert on_exit["onExitCodes"] == {"containerName": "train", "operator": "In", "values": [75]}
    assert on_disruption["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert len(cloud.calls("node-pools create")) == 2


def test_no_placeholder_is_left_and_buckets_are_mounted(cloud):
    cloud.put("gs://other/records/index.npz")
    cloud.run(*RUN, "--records", "gs://other/records")
    assert not re.search(r"@[A-Z_]+@", cloud.state["manifest"])
    pod = jobset(cloud)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    seen = {volume["csi"]["volumeAttributes"]["bucketName"]: mounts[volume["name"]] for volume in pod["volumes"]}
    assert seen == {"bucket": "/gcs/bucket", "other": "/gcs/other"}
    roles = {(call[4], call[6]) for call in cloud.calls("add-iam-policy-binding")}
    assert roles == {
        ("gs://bucket", "--role=roles/storage.objectUser"),
        ("gs://bucket", "--role=roles/storage.legacyBucketReader"),
        ("gs://other", "--role=roles/storage.objectViewer"),
    }


def test_overrides_reach_the_trainer_as_they_were_typed(cloud):
    override = '--config.model.llm=it\'s "a" \\ $HOME $(hostname) $$ name'
    cloud.run(*RUN, override)
    shell, dash_c, text = jobset(cloud)["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"][
        "containers"
    ][0]["command"]
    assert (shell, dash_c) == ("bash", "-c")
    text = text.replace("$$", "$")  # as Kubernetes does
    arguments = text.split("worker.sh pod ", 1)[1]
    read = subprocess.run(["bash", "-c", f"printf '%s\\n' {arguments}"], capture_output=True, text=True).stdout
    assert read.splitlines()[-1] == override


def test_a_failed_jobset_ends_with_an_error_and_no_pools(cloud):
    cloud.state["jobset_attempts"] = [["0", "1 1", "5 2 Failed"]]
    result = cloud.run(*RUN, expect=1)
    assert "5 restarts, 2 of them after errors" in result.stderr
    assert cloud.state["pools"] == {} and cloud.state["jobset"] is None
    assert not cloud.has("gs://bucket/runs/aqa/launch/complete")


def test_errors_are_forgiven_where_the_run_got_on(cloud):
    cloud.state["jobset_attempts"] = [["2 2 Failed"]] * 4
    cloud.state["saved"] = [10, 20, 30, 30]  # the newest checkpoint at the launch, and after each JobSet
    result = cloud.run(*RUN, expect=1)
    assert len(cloud.calls("apply", ".jobset.yaml")) == 3
    assert "too many errors" in result.stderr and cloud.state["pools"] == {}
    assert len(cloud.calls("node-pools create")) == 1


@pytest.mark.parametrize("flags", [[], ["--with_cluster"]], ids=str)
def test_a_jobset_that_a_person_deleted_ends_the_launch_and_deletes_nothing(cloud, flags):
    cloud.state["jobset_attempts"] = [["0", "deleted"]]
    result = cloud.run(*RUN, *flags, expect=1)
    assert "leaving: the JobSet aqa was deleted" in result.stderr
    assert "giving up" not in result.stderr and not cloud.calls("delete")
    assert list(cloud.state["pools"]) == ["aqa-0"] and cloud.state["cluster"] == "desta-jax"


def test_launched_again_it_follows_the_running_jobset(cloud):
    cloud.run(*RUN, "--keep")
    (cloud.folder / "gs/bucket/runs/aqa/launch/complete").unlink()
    cloud.forget_calls()
    cloud.state["jobset"] = ["3", "3 Completed"]
    result = cloud.run(*RUN)
    assert "is there already" in result.stderr
    assert not cloud.calls(" create ") and not cloud.calls(".jobset.yaml")


def test_a_jobset_that_trains_something_else_is_left_alone(cloud):
    cloud.run(*RUN, "--keep")
    (cloud.folder / "gs/bucket/runs/aqa/launch/complete").unlink()
    cloud.state["jobset"] = ["3"]
    result = cloud.run(*RUN, "--config.seed=7", expect=2)
    assert "trains something else" in result.stderr
    assert cloud.state["jobset"] == ["3"]


def test_a_failed_jobset_from_before_is_replaced(cloud):
    cloud.run(*RUN, "--keep")
    (cloud.folder / "gs/bucket/runs/aqa/launch/complete").unlink()
    cloud.state.update(jobset=["5 2 Failed"], jobset_attempts=[["0 Completed"]])
    cloud.run(*RUN)
    assert cloud.has("gs://bucket/runs/aqa/launch/complete")


def test_a_broken_pool_is_made_again(cloud):
    cloud.state.update(cluster="desta-jax", pools={"aqa-0": "ERROR", "aqa-other": "RUNNING"})
    cloud.run(*RUN)
    assert cloud.calls("node-pools delete aqa-0") and cloud.calls("node-pools create aqa-0")
    assert cloud.state["pools"] == {"aqa-other": "RUNNING"}


@pytest.mark.parametrize(
    ("earlier", "told"), [(["--topology", "v6e-64"], "topology 8x8, spot no"), (["--spot"], "topology 4x4, spot yes")]
)
def test_a_pool_of_another_kind_is_not_taken(cloud, earlier, told):
    """Its pods would wait for ever, or cost what was not asked for."""
    cloud.run(*RUN, *earlier, "--keep")
    cloud.state.update(jobset=None, jobset_attempts=[["0 Completed"]])  # stopped
    result = cloud.run(*RUN, "--workdir", "gs://bucket/runs/two", expect=2)
    assert told in result.stderr and "take another --name, or run down first" in result.stderr
    assert cloud.state["pools"] and not cloud.state["jobset"]
    cloud.run(*RUN, *earlier, "--workdir", "gs://bucket/runs/two")


def test_pools_that_cannot_be_made_end_the_launch(cloud):
    cloud.state["failures"] = [["node-pools create", 9, "quota"]]
    result = cloud.run(*RUN, "--max_errors", "2", expect=1)
    assert "no node pools" in result.stderr
    assert len(cloud.calls("node-pools create")) == 2


def test_passing_failures_of_the_cloud_are_waited_out(cloud):
    cloud.state["failures"] = [["clusters list", 1, "503"], [" logs ", 1, "503"]]
    cloud.run(*RUN)


def test_a_cluster_that_does_not_answer_is_left_to_its_work(cloud):
    cloud.state["failures"] = [["get jobset", 99, "503"]]
    cloud.state["jobset_attempts"] = [["0", "0", "0"]]
    cloud.state.update(cluster="desta-jax", pools={"aqa-0": "RUNNING"})
    result = cloud.run(*RUN, expect=2)
    assert "does not answer" in result.stderr
    assert not cloud.calls("node-pools delete")


def test_a_failure_after_the_cluster_is_made_names_what_costs(cloud):
    cloud.state["failures"] = [["add-iam-policy-binding", 99, "403"]]
    result = cloud.run(*RUN, expect=2)
    assert "the cluster desta-jax is there, and its CPU node costs" in result.stderr


def test_down_with_the_cluster_leaves_nothing(cloud):
    cloud.state.update(cluster="desta-jax", pools={"aqa-0": "RUNNING"})
    result = cloud.run("gke.sh", "down", *PLACE, "--with_cluster")
    assert cloud.state["cluster"] is None
    assert "There is no cluster desta-jax" in result.stderr


@pytest.mark.parametrize("verb", [RUN, ["gke.sh", "down", *PLACE]], ids=["run", "down"])
def test_nothing_is_said_to_cost_once_the_cluster_is_gone(cloud, verb):
    result = cloud.run(*verb, "--with_cluster")
    assert cloud.state["cluster"] is None
    assert result.stderr.splitlines()[-1].startswith("There is no cluster desta-jax")


def test_a_cluster_that_other_runs_use_is_not_deleted(cloud):
    cloud.state.update(cluster="desta-jax", pools={"default-pool": "RUNNING", "aqa-0": "RUNNING", "aqa-1-0": "RUNNING"})
    result = cloud.run("gke.sh", "down", *PLACE, "--with_cluster", expect=1)
    assert "aqa-1-0" in result.stderr and "is not deleted" in result.stderr
    assert cloud.state["cluster"] == "desta-jax"
    assert cloud.state["pools"] == {"default-pool": "RUNNING", "aqa-1-0": "RUNNING"}, "this run's own are deleted"


def test_a_complete_run_leaves_a_cluster_that_other_runs_use(cloud):
    cloud.state.update(cluster="desta-jax", pools={"other-0": "RUNNING"})
    result = cloud.run(*RUN, "--with_cluster")
    assert cloud.state["cluster"] == "desta-jax" and cloud.state["pools"] == {"other-0": "RUNNING"}
    assert "is complete" in result.stderr


def test_a_cluster_whose_pools_cannot_be_listed_is_not_deleted(cloud):
    cloud.state.update(cluster="desta-jax", pools={"other-0": "RUNNING"})
    cloud.state["failures"] = [["node-pools list", 99, "503"]]
    assert "COULD NOT CONFIRM" in cloud.run("gke.sh", "down", *PLACE, "--with_cluster", expect=1).stderr
    assert not cloud.calls("clusters delete")


def test_switches_take_no_value(cloud):
    assert "--with_cluster takes no value" in cloud.run(*RUN, "--with_cluster=no", expect=2).stderr
    assert not cloud.calls()


def test_down_says_so_when_it_cannot_confirm(cloud):
    cloud.state.update(cluster="desta-jax", pools={"aqa-0": "RUNNING"})
    cloud.state["failures"] = [["node-pools delete", 99, "busy"]]
    assert "COULD NOT CONFIRM" in cloud.run("gke.sh", "down", *PLACE, expect=1).stderr


@pytest.mark.parametrize(
    "topology, accelerator, machine, shape, hosts",
    [
        ("v4-16", "tpu-v4-podslice", "ct4p-hightpu-4t", "2x2x2", 2),
        ("v5e-8", "tpu-v5-lite-podslice", "ct5lp-hightpu-8t", "2x4", 1),
        ("v5e-256", "tpu-v5-lite-podslice", "ct5lp-hightpu-4t", "16x16", 64),
        ("v5p-128", "tpu-v5p-slice", "ct5p-hightpu-4t", "4x4x4", 16),
        ("v6e-1", "tpu-v6e-slice", "ct6e-standard-1t", "1x1", 1),
    ],
)
def test_each_topology_has_its_machines(cloud, topology, accelerator, machine, shape, hosts):
    printed = cloud.dry_run(*RUN, "--topology", topology)
    (create,) = [words for words in printed if "node-pools" in words and "create" in words]
    assert {f"--machine-type={machine}", f"--max-nodes={hosts}"} <= set(create)
    assert (f"--tpu-topology={shape}" in create) == (hosts > 1)
    manifest = (cloud.folder / "desta_jax-aqa.jobset.yaml").read_text()
    assert f"gke-tpu-accelerator: {accelerator}\n" in manifest and f"gke-tpu-topology: {shape}\n" in manifest


def test_slices_of_one_host_cannot_be_joined(cloud):
    assert "several hosts" in cloud.run(*RUN, "--topology", "v6e-8", "--slices", "2", expect=2).stderr
