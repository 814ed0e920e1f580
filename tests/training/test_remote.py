"""The small files of a work directory in a bucket, for which memory stands."""

import contextlib
import json
import pathlib
import tempfile
from types import SimpleNamespace

import jax
import pytest
from etils import epath
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem

from desta_jax.config import make_config
from desta_jax.training import profiler
from desta_jax.training.checkpoint import changed_keys
from desta_jax.training.goodput import Account
from desta_jax.training.heartbeat import Heartbeat, last_seen
from desta_jax.training.json_lines import JsonLines, read_json_lines
from desta_jax.training.metrics import Journal
from desta_jax.weights.trained import find_step

WORKDIR = "gs://bucket/runs/a"


class Bucket(MemoryFileSystem):
    """Objects by name, and nothing else, under gs://."""

    protocol = ("gcs", "gs")
    store, pseudo_dirs = {}, [""]

    @classmethod
    def _strip_protocol(cls, path):
        return "/" + str(path).removeprefix("gs://").strip("/") if str(path).strip("/") else ""


@pytest.fixture(autouse=True)
def bucket(monkeypatch):
    monkeypatch.setattr(type(backend.fsspec_backend), "fs", lambda self, path: Bucket())
    Bucket.store.clear()
    return Bucket.store


def test_lines_are_in_the_bucket_when_the_file_is_flushed(bucket):
    path = epath.Path(WORKDIR) / "lines.jsonl"
    lines = JsonLines(path)
    for step in (1, 2):
        lines.write({"step": step})
    assert read_json_lines(path) == []
    lines.flush()
    assert read_json_lines(path) == [{"step": 1}, {"step": 2}]
    JsonLines(path, keep_below=1).close()
    assert read_json_lines(path) == [{"step": 1}]
    assert list(bucket) == ["/bucket/runs/a/lines.jsonl"]  # an object appears whole: nothing is renamed


def test_what_is_not_finite_is_null_in_a_line(tmp_path):
    lines = JsonLines(epath.Path(tmp_path / "lines.jsonl"))
    lines.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "learning_rate": 0.5})
    assert (tmp_path / "lines.jsonl").read_text() == (
        '{"step": 1, "loss": null, "grad_norm": null, "learning_rate": 0.5}\n'
    )


def test_a_run_in_a_bucket_keeps_config_account_journal_and_heartbeat(bucket):
    config = make_config({"log.tensorboard": False})
    (epath.Path(WORKDIR) / "config.json").write_text(json.dumps(config.to_dict()))
    assert changed_keys(WORKDIR, config.to_dict()) == {}
    account = Account(WORKDIR, step=0, began=1000.0, last_seen=last_seen(WORKDIR))
    account.spend("step", 1010.0)
    account.write(5)
    journal = Journal(WORKDIR, config, start=0, steps=9)
    journal.validation(5, 1.0, 10)
    journal.close()
    with Heartbeat(WORKDIR, config.stall, 0):
        pass
    again = Account(WORKDIR, step=5, began=1020.0, last_seen=None)
    assert again.starts == 2 and again.goodput() == 0.5
    assert last_seen(WORKDIR) > 1e9
    names = {"config.json", "heartbeat-0.json"}
    names |= {f"{name}.jsonl" for name in ("goodput", "metrics", "validation", "answers")}
    assert {name.rpartition("/")[2] for name in bucket} == names


def test_tensorboards_files_are_taken_to_the_bucket_and_a_refusal_ends_nothing(bucket, monkeypatch):
    journal = Journal(WORKDIR, make_config({}), start=0, steps=9)
    journal.validation(5, 1.0, 10)
    journal.flush()
    (written,) = [name for name in bucket if "tfevents" in name]
    before = len(bucket[written].getvalue())
    journal.validation(6, 1.0, 10)
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "open", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("503")))
        journal._board.flush()
    journal.close()
    assert len(bucket[written].getvalue()) > before > 0


def test_a_trace_is_taken_to_the_bucket(bucket, tmp_path):
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "host.xplane.pb").write_bytes(b"trace")
    profiler._copy(tmp_path, epath.Path(WORKDIR) / "profile")
    assert bucket["/bucket/runs/a/profile/plugins/host.xplane.pb"].getvalue() == b"trace"


def test_a_trace_that_cannot_be_written_is_told_and_leaves_nothing_behind(monkeypatch, tmp_path):
    def trace(folder):
        (pathlib.Path(folder) / "host.xplane.pb").write_bytes(b"trace")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(jax.profiler, "start_trace", trace)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    said, watch = [], SimpleNamespace(aside=lambda kind: contextlib.nullcontext())
    window = make_config({"profile.start_step": 2, "profile.steps": 1}).profile
    traces = profiler.Profiler(WORKDIR, window, SimpleNamespace(say=said.append), silent=False)
    with monkeypatch.context() as patched:
        patched.setattr(Bucket, "open", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("503")))
        for step in (1, 2, 3):
            with traces.step(step, watch):
                assert any(tmp_path.iterdir()) == (step == 2)
    assert len(said) == 1 and "cannot be written to gs://bucket/runs/a/profile: 503" in said[0]


def test_a_checkpoint_counts_when_the_mark_of_the_whole_is_there(bucket):
    folder = epath.Path(WORKDIR) / "checkpoints"
    for name in ("2/default/_METADATA", "2/commit_success.txt", "4/default/_METADATA", "4/default/commit_success.txt"):
        (folder / name).write_text("")
    assert find_step(WORKDIR) == 2
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 4; there are 2"):
        find_step(WORKDIR, 4)
