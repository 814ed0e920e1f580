"""The process that compiles: its answers, its errors, its memory; with the TPU compiler where there is one."""

import importlib.util
import json
import subprocess
import sys

import pytest
from plan.conftest import needs_libtpu

from desta_jax.config import make_config
from desta_jax.plan import compile as compiling
from desta_jax.plan import report, worker
from desta_jax.plan.compile import compile_step
from desta_jax.plan.shapes import find_models, find_work
from desta_jax.plan.topology import parse_topology
from desta_jax.plan.worker import wanted_bytes


def answer(config, topology, tmp_path, **more):
    models = find_models(config)
    return compile_step(config, models, find_work(config, models), parse_topology(topology), cache=tmp_path, **more)


@pytest.mark.parametrize(
    ("error", "gigabytes"),
    [
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. "
         "Used 17.52G of 15.75G hbm. Exceeded hbm capacity by 1.77G.", 17.52),
        ("RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (384.00G) "
         "exceeds available HBM (15.75G).", 384),
        ("INTERNAL: Mosaic failed to compile TPU kernel", None),
    ],
)  # fmt: skip
def test_how_much_memory_was_wanted_is_read_from_the_refusal(error, gigabytes):
    given = 2**30 if "temporaries" in error else 0  # what it is given is not among those
    assert wanted_bytes(error, 2**30) == (gigabytes * 2**30 + given if gigabytes else None)


def test_without_a_compiler_the_error_says_how_to_get_it(monkeypatch, micro_config, tmp_path):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "libtpu" else find(name))
    with pytest.raises(ValueError, match=r'pip install -e "\.\[tpu\]"'):
        answer(micro_config, "v5e-4", tmp_path)


@pytest.fixture
def stand_in(monkeypatch):
    """Has a few lines of Python stand for the process that compiles."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == "libtpu" else find(name))

    def use(code):
        start = subprocess.Popen
        monkeypatch.setattr(
            compiling.subprocess, "Popen", lambda command, **more: start([sys.executable, "-c", code], **more)
        )

    return use


def test_what_is_wrong_with_the_run_is_told_in_its_own_words(stand_in, micro_config, tmp_path):
    stand_in("import json; print('libtpu says hello'); print(json.dumps({'error': 'mesh: 3 is odd\\n  very'}))")
    with pytest.raises(ValueError, match="^mesh: 3 is odd\n  very$"):
        answer(micro_config, "v5e-4", tmp_path)


def test_a_compiler_that_breaks_down_is_told_with_its_last_words(stand_in, micro_config, tmp_path):
    stand_in("raise RuntimeError('no such instruction')")
    with pytest.raises(ValueError, match="v5e-4: RuntimeError: no such instruction"):
        answer(micro_config, "v5e-4", tmp_path)


@pytest.mark.parametrize(
    ("error", "told"),
    [(TypeError("sub got incompatible shapes"), "TypeError: sub got incompatible shapes"), (ValueError("odd"), "odd")],
)
def test_what_fails_in_the_other_process_is_told_and_not_the_last_line_of_its_traceback(
    monkeypatch, tmp_path, capsys, error, told
):
    (tmp_path / "request.json").write_text("{}")
    monkeypatch.setattr(worker, "_exit_with_parent", lambda: None)
    monkeypatch.setattr(worker.sys, "argv", ["worker", str(tmp_path / "request.json"), str(tmp_path)])

    def fail(request, cache):
        raise error

    monkeypatch.setattr(worker, "_answer", fail)
    worker.main()
    assert json.loads(capsys.readouterr().out) == {"error": told}


def test_a_remembered_answer_that_is_damaged_is_asked_for_again(stand_in, micro_config, tmp_path):
    (tmp_path / "key").mkdir()
    (tmp_path / "key" / "result.json").write_text('{"fits": tr')
    lines = []
    kept = f"""import json, gzip, pathlib
folder = pathlib.Path({str(tmp_path / "key")!r})
if not folder.exists():
    folder.mkdir()
    fields = dict.fromkeys(("parts", "mesh"), {{}}) | dict.fromkeys(("whole_leaves", "coordinates"), [])
    given = fields | {{"fits": False, "wanted_bytes": 7, "compile_seconds": 1}}
    (folder / "result.json").write_text(json.dumps(given))
    (folder / "hlo.txt.gz").write_bytes(gzip.compress(b"module"))
print("{{not JSON")
print(json.dumps({{"key": "key"}}))"""
    stand_in(kept)
    result = answer(micro_config, "v5e-4", tmp_path, report=lines.append)
    assert result.hbm_bytes == 7 and result.program == "module"
    assert any("is damaged" in line and "compiling again" in line for line in lines)
    (tmp_path / "key" / "hlo.txt.gz").write_bytes((tmp_path / "key" / "hlo.txt.gz").read_bytes()[:-5])
    assert answer(micro_config, "v5e-4", tmp_path).program == "module"


def test_a_compiler_that_hangs_is_stopped(stand_in, micro_config, tmp_path, monkeypatch):
    stand_in('import time; print(\'{"stage": "compiling"}\', flush=True); time.sleep(60)')
    monkeypatch.setattr(compiling, "SAY_EVERY", 0.2)
    lines = []
    with pytest.raises(ValueError, match="took more than 2 s"):
        answer(micro_config, "v5e-4", tmp_path, timeout=2.0, report=lines.append)
    assert any("compiling" in line for line in lines)


def test_an_answer_belongs_to_all_that_decides_it(monkeypatch):
    monkeypatch.setattr(worker.importlib.metadata, "version", lambda name: "1.0")
    request = {"topology": "v5e:2x2", "options": {}}

    def key(program="module", places=((0, 0, 0, 0),), **changes):
        return worker._key(program, places, request | changes)

    keys = [key(), key(program="other"), key(places=((0, 1, 0, 0),)), key(topology="v6e:2x2"), key(options={"a": 1})]
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_some_flag=true")
    keys.append(key())
    monkeypatch.setattr(worker.importlib.metadata, "version", lambda name: "2.0")
    keys.append(key())
    assert len(set(keys)) == len(keys)


@needs_libtpu
@pytest.mark.slow
@pytest.mark.parametrize("topology", ["v5e-1", "v4-8", "2xv6e-4"])
def test_a_micro_run_is_compiled_and_remembered(micro_config, tmp_path, topology):
    cache = tmp_path / "cache"
    result = report.plan(micro_config, topology, cache=cache)
    chips = parse_topology(topology).chips
    assert result["fits"] and result["chips"] == chips
    assert result["hbm_parts_gb"]["temporaries"] > 0
    assert 0 < result["mfu"] < 1 and result["flops"] >= result["needed_flops"]
    axes = {row["axis"] for row in result["transfers"]}
    assert axes == (set() if chips == 1 else {"fsdp", "network"} if topology.startswith("2x") else {"fsdp"})
    (kept,) = cache.iterdir()
    answer = json.loads((kept / "result.json").read_text())
    (kept / "result.json").write_text(json.dumps(answer | {"compile_seconds": -1}))
    assert report.plan(micro_config, topology, cache=cache)["compile_seconds"] == -1


@needs_libtpu
@pytest.mark.slow
def test_rows_and_mesh_must_divide_over_the_chips(micro, tmp_path):
    with pytest.raises(ValueError, match=r"train.batch_size: its 6 rows do not divide into 4 .*multiple of 4"):
        answer(make_config(micro | {"train.batch_size": 6}), "v5e-4", tmp_path)
    with pytest.raises(ValueError, match="mesh: data x fsdp x tensor = 1 x 3 x 1 does not fit 4 devices"):
        answer(make_config(micro | {"mesh.data": 1, "mesh.fsdp": 3}), "v5e-4", tmp_path)


@needs_libtpu
@pytest.mark.slow
def test_a_run_that_is_too_large_is_said_not_to_fit(micro, tmp_path):
    large = {"model.llm": "meta-llama/Llama-3.1-8B-Instruct", "mesh.data": 1, "train.batch_size": 1}
    result = report.plan(make_config(micro | large), "v5e-1", cache=tmp_path)
    assert not result["fits"] and result["hbm_gb"] > result["hbm_limit_gb"]


def test_the_compiler_ends_with_the_process_that_plans():
    code = "import threading, time; from desta_jax.plan import worker; "
    code += "threading.Thread(target=worker._exit_with_parent, daemon=True).start(); print('up', flush=True); "
    code += "time.sleep(600)"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as process:
        assert process.stdout.readline() == b"up\n" and process.poll() is None
        process.stdin.close()
        assert process.wait(timeout=60) == 1
