"""Whole runs of a micro model: resumed, killed, stopped, and refused."""

import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import replica_slices

from desta_jax.records.write import write_records
from desta_jax.training import checkpoint, loop
from desta_jax.training.export import export
from desta_jax.training.loop import COMPLETE, STOPPED, train
from desta_jax.training.run import assemble, load_frozen
from desta_jax.tree import flatten
from desta_jax.verbs.verb import say
from desta_jax.weights.adapter import read_adapter as read_exported
from desta_jax.weights.convert import convert
from desta_jax.weights.trained import read_trained


def same_adapter(one, other):
    (step, one), (other_step, other) = read_trained(str(one)), read_trained(str(other))
    assert step == other_step
    for path, leaf in flatten(one).items():
        np.testing.assert_array_equal(leaf, flatten(other)[path], err_msg=path)


def launch(config, workdir):
    """The same run as a process of its own."""
    file = pathlib.Path(workdir).with_suffix(".py")
    file.write_text(f"def get_config():\n    return {config.to_dict()!r}\n")
    command = [sys.executable, "-m", "desta_jax", "train", "--config", file, "--workdir", workdir]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_for_lines(process, workdir, count):
    """Until metrics.jsonl has that many lines, or the run is over."""
    metrics = pathlib.Path(workdir) / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.read_bytes().count(b"\n") >= count):
        time.sleep(0.02)


def test_metrics_say_what_each_step_was(whole, metrics_of):
    rows = metrics_of(whole)
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert set(rows[0]) == {"step", "loss", "grad_norm", "learning_rate", "label_tokens", "samples"}
    assert rows[0]["learning_rate"] == 0 and rows[2]["learning_rate"] == pytest.approx(1e-2)
    assert all(len(row["samples"]) == 8 for row in rows)
    first_epoch = [sample for row in rows for sample in row["samples"]][:21]
    assert sorted(first_epoch) == sorted(f"row-{i}" for i in range(21))
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_validation_is_told_before_and_after(config_of, whole, tmp_path):
    train(config_of(**{"evaluate.every_steps": 3, "train.steps": 3}), str(tmp_path))
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 3]
    assert rows[1]["loss"] < rows[0]["loss"]
    assert rows[0]["label_tokens"] == rows[1]["label_tokens"] > 5


def test_validation_takes_no_more_rows_at_once_than_a_step(config_of, tmp_path):
    run = assemble(config_of(**{"train.batch_size": 32, "train.accumulate": 4}), str(tmp_path))
    assert (run.inputs.shapes.rows, run.validation.shapes.rows) == (32, 8)


def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(config_of, whole, tmp_path, metrics_of):
    workdir, chance = tmp_path / "killed", random.Random(7)
    for lines in (chance.randint(1, 3), chance.randint(4, 5)):
        process = launch(config_of(), workdir)
        wait_for_lines(process, workdir, lines)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.wait()
    with open(workdir / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "lo')  # what a kill in mid-write leaves
    process = launch(config_of(), workdir)
    assert process.wait() == COMPLETE, process.stderr.read().decode()
    assert metrics_of(workdir) == metrics_of(whole)
    same_adapter(workdir, whole)


def test_sigterm_saves_and_asks_to_be_started_again(config_of, whole, tmp_path, metrics_of):
    workdir = tmp_path / "stopped"
    config = config_of(**{"checkpoint.every_steps": 100})
    process = launch(config, workdir)
    wait_for_lines(process, workdir, 2)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == STOPPED
    assert b"saved" in process.stderr.read()
    stopped_at = read_trained(str(workdir))[0]
    assert 2 <= stopped_at < 6
    assert train(config, str(workdir)) == COMPLETE
    assert metrics_of(workdir) == metrics_of(whole)
    same_adapter(workdir, whole)


def test_what_fails_in_validation_costs_no_step(config_of, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("no room for logits")

    config = config_of(**{"train.steps": 1})
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(loop.Validation, "_mean", fail)
        train(config, str(tmp_path))
    assert_validated_when_it_goes_on(config, tmp_path)


def test_a_signal_during_validation_cuts_it_short(config_of, tmp_path, monkeypatch):
    config = config_of(**{"train.steps": 1, "train.batch_size": 4, "mesh.data": 4, "mesh.tensor": 2})  # two batches
    signals = iter([signal.SIGTERM, signal.SIGTERM])  # as a supervisor and the system may both send it
    with monkeypatch.context() as patched:
        patched.setattr(loop.Watch, "alive", lambda _: [signal.raise_signal(number) for number in signals])
        assert train(config, str(tmp_path)) == STOPPED
    assert_validated_when_it_goes_on(config, tmp_path)


def test_a_validation_that_was_cut_short_on_the_way_is_made_up(config_of, tmp_path, monkeypatch):
    config = config_of(**{"train.steps": 2, "evaluate.every_steps": 1})
    with monkeypatch.context() as patched:
        validate = loop.Validation.loss

        def stop_after_a_step(self, step, adapter):
            if step == 1:
                signal.raise_signal(signal.SIGTERM)
            return validate(self, step, adapter)

        patched.setattr(loop.Validation, "loss", stop_after_a_step)
        assert train(config, str(tmp_path)) == STOPPED
    assert train(config, str(tmp_path)) == COMPLETE
    rows = [json.loads(line) for line in (tmp_path / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]


def test_what_was_validated_is_saved(config_of, tmp_path):
    config = config_of(**{"train.steps": 3, "evaluate.every_steps": 2, "checkpoint.every_steps": 100})
    assert train(config, str(tmp_path)) == COMPLETE
    assert sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit()) == [2, 3]


def test_several_processes_count_the_times_they_ask_whether_to_stop(monkeypatch):
    """JAX names the time at which all stop; the first is 1, and once it has come it stays."""
    asked = []

    def agreed_on_the_third(time):
        asked.append(time)
        return time == 3

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(loop.multihost_utils, "reached_preemption_sync_point", agreed_on_the_third)
    with loop.stop_on_signal() as stop:
        assert [stop() for _ in range(5)] == [False, False, True, True, True]
    assert asked == [1, 2, 3]


def assert_validated_when_it_goes_on(config, workdir):
    """The one step is saved, and what it comes to is told by the next start, once."""
    assert read_trained(str(workdir))[0] == 1 and not (workdir / "validation.jsonl").read_text()
    for _ in range(2):
        assert train(config, str(workdir)) == COMPLETE
    assert [json.loads(line)["step"] for line in (workdir / "validation.jsonl").read_text().splitlines()] == [1]


def test_a_line_that_nobody_hears_ends_no_run(config_of, tmp_path, monkeypatch):
    """As `2>&1 | tee` has it: Ctrl-C ends tee too."""

    def hang_up(*_):
        raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=hang_up, flush=hang_up))
    say("a verb's line")
    assert train(config_of(**{"train.steps": 1, "data.validation": ()}), str(tmp_path)) == COMPLETE


def test_benchmarks_that_a_kill_interrupted_are_taken_when_the_run_goes_on(config_of, tmp_path):
    config = config_of(**{"train.steps": 2, "evaluate.benchmark_every_steps": 1, "evaluate.benchmarks": ("mmau=x",)})
    taken = []

    def scores(run, frozen, adapter, step):
        taken.append(step)
        if taken == [1, 2]:
            raise KeyboardInterrupt
        return {"mmau": 50.0}

    with pytest.raises(KeyboardInterrupt):
        train(config, str(tmp_path), scores=scores)
    for _ in range(2):
        assert train(config, str(tmp_path), scores=scores) == COMPLETE
    assert taken == [1, 2, 2]
    rows = [json.loads(line) for line in (tmp_path / "benchmarks.jsonl").read_text().splitlines()]
    assert rows == [{"step": 1, "mmau": 50.0}, {"step": 2, "mmau": 50.0}]


def test_a_run_that_is_stopped_at_its_last_step_takes_the_benchmarks_when_it_goes_on(config_of, tmp_path, monkeypatch):
    config, taken = config_of(**{"train.steps": 1, "evaluate.benchmarks": ("mmau=x",)}), []

    def scores(run, frozen, adapter, step):
        taken.append(step)
        return {"mmau": 50.0}

    with monkeypatch.context() as patched:
        patched.setattr(loop.Watch, "__call__", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert train(config, str(tmp_path), scores=scores) == STOPPED and not taken
    assert train(config, str(tmp_path), scores=scores) == COMPLETE and taken == [1]


def test_a_run_goes_on_over_another_mesh(config_of, whole, tmp_path, metrics_of):
    workdir = tmp_path / "moved"
    shutil.copytree(whole, workdir)
    for step in ("4", "6"):
        shutil.rmtree(workdir / "checkpoints" / step, ignore_errors=True)
    assert train(config_of(**{"mesh.data": 2, "mesh.fsdp": 2, "mesh.tensor": 2}), str(workdir)) == COMPLETE
    for row, expected in zip(metrics_of(workdir), metrics_of(whole), strict=True):
        assert row["samples"] == expected["samples"]
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)  # sums in another order, six Adam steps


@pytest.mark.parametrize("other", ["one more", "in another order"])
def test_a_run_does_not_go_on_with_other_samples(config_of, tones, tmp_path, other):
    def records(count, backwards=False):
        shutil.rmtree(tmp_path / "records", ignore_errors=True)
        manifest = tones(tmp_path, count, 3)
        lines = manifest.read_text().splitlines(keepends=True)
        manifest.write_text("".join(reversed(lines) if backwards else lines))
        write_records([str(manifest)], str(tmp_path), str(tmp_path / "records"), shards=1, workers=1, report=str)

    records(9)
    config, workdir = config_of(**{"data.train": (str(tmp_path / "records"),)}), tmp_path / "run"
    assert train(config, str(workdir)) == COMPLETE
    moved = config_of(**{"data.train": (str((tmp_path / "records").rename(tmp_path / "moved")),)})
    assert train(moved, str(workdir)) == COMPLETE
    records(*((10,) if other == "one more" else (9, True)))
    with pytest.raises(ValueError, match=r"data.train: these are not the samples.*delete .*samples\.json"):
        train(config, str(workdir))
    (workdir / "samples.json").unlink()
    assert train(config, str(workdir)) == COMPLETE


@pytest.mark.parametrize("part", ["lm", "encoder"])
def test_a_run_goes_on_with_a_model_that_was_moved_and_with_no_other(config_of, micro, tmp_path, monkeypatch, part):
    workdir, moved = tmp_path / "run", tmp_path / "moved"
    shutil.copytree(micro / "model", moved)
    changes = {"train.steps": 1, "data.validation": ()}
    assert train(config_of(**changes), str(workdir)) == COMPLETE
    config = config_of(**changes, **{"model.checkpoint": str(moved)})
    assert train(config, str(workdir)) == COMPLETE

    def tuned(run):
        frozen = load_frozen(run)
        return {**frozen, part: {**frozen[part], "layers": jax.tree.map(lambda leaf: 2 * leaf, frozen[part]["layers"])}}

    monkeypatch.setattr(loop, "load_frozen", tuned)
    with pytest.raises(ValueError, match=r"model\.checkpoint: these are not the frozen models"):
        train(config, str(workdir))
    samples = json.loads((workdir / "samples.json").read_text())
    del samples["model"]  # as runs of before have it
    (workdir / "samples.json").write_text(json.dumps(samples))
    assert train(config, str(workdir)) == COMPLETE


def test_a_complete_run_has_nothing_left_to_do(config_of, whole, metrics_of):
    before = metrics_of(whole)
    assert train(config_of(), str(whole)) == COMPLETE
    assert metrics_of(whole) == before


def test_a_batch_that_was_left_on_the_host_is_refused(config_of, tmp_path, monkeypatch):
    """The transfer guard: what goes to a device without being asked to would do so at every step."""
    monkeypatch.setattr("desta_jax.training.loop.sharding.put_batch", lambda batch, mesh, rows: batch)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        train(config_of(**{"data.validation": ()}), str(tmp_path))


def test_a_checkpoint_may_be_copied_to_the_host(config_of, tmp_path, monkeypatch):
    """What the transfer guard forbids of any device but a CPU, which has nothing to copy."""
    copy, guards = replica_slices.transfer_arrays_to_host, []

    def noting(*arrays, **options):
        guards.append(jax.config.jax_transfer_guard_device_to_host)
        return copy(*arrays, **options)

    monkeypatch.setattr(replica_slices, "transfer_arrays_to_host", noting)
    assert train(config_of(**{"train.steps": 1, "data.validation": ()}), str(tmp_path)) == COMPLETE
    assert guards == ["allow"] * len(guards) != []


def test_packed_rows_train_too(config_of, tmp_path, metrics_of):
    changes = {"data.pack": True, "data.clips_per_row": 4, "train.batch_size": 8, "mesh.data": 2, "mesh.fsdp": 1}
    config = config_of(**changes, **{"train.steps": 2, "mesh.tensor": 4})
    assert train(config, str(tmp_path)) == COMPLETE
    assert all(np.isfinite(row["loss"]) for row in metrics_of(tmp_path))


def test_export_reads_back_bit_for_bit(whole, tmp_path):
    exported, config = read_exported(export(str(whole), str(tmp_path / "adapter")))
    _, adapter = read_trained(str(whole))
    for path, leaf in flatten(adapter).items():
        np.testing.assert_array_equal(flatten(exported)[path], leaf, err_msg=path)
    assert config["target_layer_ids"] == [0, 1] and config["audio_seconds"] == 1


def test_export_names_the_checkpoints_that_there_are(whole, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5; there are 2, 4, 6"):
        export(str(whole), str(tmp_path / "adapter"), step=5)
    with pytest.raises(FileNotFoundError, match="not the work directory of a run"):
        export(str(tmp_path), str(tmp_path / "adapter"))


def test_training_starts_from_the_converted_folders_adapter(config_of, micro, whole, tmp_path, metrics_of):
    exported = export(str(whole), str(tmp_path / "adapter"))
    folder = convert(micro / "llama", micro / "whisper", tmp_path / "with_adapter", adapter=exported)
    train(config_of(**{"model.checkpoint": str(folder), "train.steps": 1}), str(tmp_path / "on"))
    assert metrics_of(tmp_path / "on")[0]["loss"] < metrics_of(whole)[1]["loss"]
    with pytest.raises(ValueError, match=r"adapter\.num_layers.*\n.*connector\.layers"):
        train(config_of(**{"model.checkpoint": str(folder), "adapter.num_layers": 2}), str(tmp_path / "other"))
    settings = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"target_layer_ids": [1]}))
    with pytest.raises(ValueError, match=r"adapter\.tap_layers: \(1,\) there, \(0, 1\) in the config"):
        train(config_of(**{"model.checkpoint": str(folder)}), str(tmp_path / "deaf"))


def test_a_loss_that_stays_not_finite_stops_the_run(config_of, tmp_path):
    changes = {"optimizer.peak_learning_rate": 1e30, "optimizer.warmup_steps": 0, "train.max_skipped_steps": 2}
    with pytest.raises(ValueError, match=r"not finite in 2 steps in a row.*peak_learning_rate"):
        train(config_of(**changes, **{"train.steps": 20}), str(tmp_path))


def test_another_config_is_refused_for_a_run_that_exists(config_of, whole):
    with pytest.raises(ValueError, match=r"adapter\.dropout: was 0\.1, is 0\.2"):
        train(config_of(**{"adapter.dropout": 0.2}), str(whole))


def test_a_work_directory_is_one_runs_at_a_time(config_of, tmp_path):
    with checkpoint.alone(str(tmp_path)), pytest.raises(ValueError, match="another process trains here"):
        train(config_of(), str(tmp_path))
    with checkpoint.alone(str(tmp_path)):
        pass


def test_a_run_that_saved_nothing_may_begin_again_otherwise(config_of, tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(MemoryError):
        patched.setattr(loop, "iterate", lambda *_: (_ for _ in ()).throw(MemoryError()))
        train(config_of(), str(tmp_path))
    assert train(config_of(**{"train.batch_size": 16, "train.steps": 1, "data.validation": ()}), str(tmp_path)) == 0
    assert json.loads((tmp_path / "config.json").read_text())["train"]["batch_size"] == 16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.checkpoint": ""}, r"model\.checkpoint: name the folder"),
        ({"model.checkpoint": "nowhere"}, "nowhere"),
        ({"adapter.tap_layers": (0, 9)}, r"adapter\.tap_layers: 9 is beyond"),
        ({"adapter.placeholder_token": "<|nobody|>"}, r"adapter\.placeholder_token.*nobody"),
        ({"train.batch_size": 12}, r"train\.batch_size: its 12 rows .*multiple of 8"),
        ({"mesh.fsdp": 3}, r"mesh: data x fsdp x tensor"),
        ({"data.train": ()}, r"data\.train"),
        ({"data.train": ("nowhere",)}, "nowhere"),
        ({"log.wandb_project": "x"}, "pip install wandb"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_said_before_anything_starts(config_of, tmp_path, changes, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        train(config_of(**changes), str(tmp_path / "run"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists() or "wandb" in message
