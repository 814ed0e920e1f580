"""From a compiler's answer to figures: which are put together how, and what a user reads."""

import json

import pytest

from desta_jax import cli
from desta_jax.config import make_config
from desta_jax.plan import report, sweep
from desta_jax.plan.chips import CHIPS
from desta_jax.plan.compile import Compiled
from desta_jax.plan.topology import parse_topology

SQUARE = ((0, 0, 0), (1, 0, 0), (1, 1, 0), (0, 1, 0))
PARTS = {"encoder": 1_000_000_000, "lm": 2_000_000_000, "adapter": 100_000_000, "optimizer": 200_000_000, "batch": 0}
LAYER = 2 * 256 * 1024 * 1024


@pytest.fixture
def compiler(monkeypatch, program):
    """Stands for the compiler: every step is the same small program; `limit` is the batch from which none fits."""
    asked = []

    def answer(config, models, work, topology, *, cache, report):
        asked.append((config.mesh.to_dict(), config.train.batch_size, config.remat, work))
        fits = config.train.batch_size < compiler.limit
        mesh = {"data": topology.slices, "fsdp": 4, "tensor": 1}
        places = tuple((number, *place) for number in range(topology.slices) for place in SQUARE)
        hbm = 5e9 if fits else 20e9
        return Compiled(fits, hbm, PARTS, ("lm.x",), mesh, places, 1.0, program("gather_v5e_4") if fits else "")

    compiler = type("Compiler", (), {"asked": asked, "limit": 10**9})()
    monkeypatch.setattr(report, "compile_step", answer)
    return compiler


@pytest.fixture
def config_file(tmp_path, micro):
    path = tmp_path / "run.py"
    path.write_text(f"from desta_jax.config import make_config\ndef get_config():\n    return make_config({micro!r})\n")
    return str(path)


def test_the_figures(compiler, micro_config):
    result = report.plan(micro_config, "v5e-4")
    assert result["fits"] and result["chips"] == 4
    assert result["hbm_gb"] == 5 and result["hbm_limit_gb"] == pytest.approx(15.75 * 2**30 / 1e9, abs=1e-3)
    parts = {"frozen": 3.0, "adapter": 0.1, "optimizer": 0.2, "batch": 0.0, "temporaries": 1.7}
    assert result["hbm_parts_gb"] == parts
    seconds = result["step_seconds"]
    assert seconds == pytest.approx(sum(result["step_parts_seconds"].values()))
    assert result["samples_per_second"] == pytest.approx(8 / seconds)
    assert result["days"] == pytest.approx(864 * seconds / 86400)
    assert result["flops"] == 3 * LAYER
    assert result["mfu"] == pytest.approx(result["needed_flops"] / CHIPS["v5e"].peak_flops / seconds)
    assert {(row["kind"], row["axis"]) for row in result["transfers"]} == {
        ("all-gather", "fsdp"),
        ("all-reduce", "fsdp"),
    }
    assert "lm.x is whole on every chip" in result["notes"] and result["left_out"]


@pytest.mark.parametrize(
    ("changes", "topology", "told"),
    [
        ({"data.validation": ("v",)}, "v5e-4", "answers (evaluate.samples)"),
        (
            {"data.validation": ("v",), "evaluate.benchmarks": ("mmau=data",)},
            "v5e-4",
            "answers (evaluate.samples) and evaluate.benchmarks, which also take Whisper's decoder,",
        ),
        ({"data.validation": ("v",), "evaluate.samples": 0}, "v5e-4", None),
        ({"data.validation": ("v",)}, "2xv5e-4", None),  # several processes show none
        ({}, "v5e-4", None),
    ],
)
def test_what_one_process_holds_between_steps_is_told(compiler, micro, changes, topology, told):
    large = {"model.llm": "meta-llama/Llama-3.1-8B-Instruct", "train.batch_size": 16}
    result = report.plan(make_config(micro | large | changes), topology)
    found = [note for note in result["notes"] if note.startswith("between steps")]
    layers = 32 * (2 * 4096 * (4096 + 1024) + 3 * 4096 * 14336 + 2 * 4096) * 2 / 4  # bfloat16, over fsdp 4
    copy = f"{told} take a copy of the language model's layers, {layers / 1e9:.2f} GB a chip"
    assert found == ([f"between steps {copy}"] if told else [])
    assert any("between its steps" in line for line in result["left_out"])


def test_what_does_not_fit_has_no_time(compiler, micro_config):
    compiler.limit = 0
    result = report.plan(micro_config, "v5e-4")
    assert not result["fits"] and "step_seconds" not in result
    assert "DOES NOT FIT, 20.00 of 16.91 GB" in report.describe(result)


def test_a_config_that_sets_no_mesh_gets_fsdp_over_a_slice(compiler, micro, micro_config):
    result = report.plan(micro_config, "2xv5e-4")
    assert compiler.asked[-1][0] == {"data": -1, "fsdp": 4, "tensor": 1}
    assert "the config sets no mesh: planned with, and train with, --config.mesh.fsdp=4" in result["notes"]
    chosen = make_config(micro | {"mesh.data": 4})
    assert report.choose_mesh(chosen, parse_topology("v5e-4")) == (chosen, [])


def test_a_sweep_ranks_what_fits_and_stops_where_it_does_not(compiler, micro_config):
    compiler.limit = 32
    lines = []
    results = sweep.sweep(
        micro_config, "v5e-4", batches=[32, 8, 16, 64], remats=["all"], meshes=["1x4x1"], say=lines.append
    )
    assert [result["batch_size"] for result in results] == [16, 8, 32]  # 64 is not tried
    assert [result["fits"] for result in results] == [True, True, False]
    assert len(lines) == 3 and "does not fit" in sweep.describe(results).splitlines()[-1]
    assert "(1 of 4, " in lines[0] and lines[-1].endswith("(4 of 4, 0m 00s left)")


def test_a_sweep_by_itself(compiler, micro_config):
    sweep.sweep(micro_config, "v5e-4")
    tried = [(tuple(mesh.values()), batch, remat) for mesh, batch, remat, _ in compiler.asked]
    assert {mesh for mesh, _, _ in tried} == {(1, 4, 1), (1, 2, 2), (1, 1, 4)}
    assert {batch for _, batch, _ in tried} == {8, 16, 32} and {remat for _, _, remat in tried} == {
        "all",
        "matmuls",
        "scores",
        "none",
    }
    assert len(tried) == 36


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"meshes": ["1x4x1", "4"]}, "expected data x fsdp x tensor"), ({"remats": ["all", "some"]}, "is none of")],
)
def test_a_sweep_of_nothing_says_why(compiler, micro_config, asked, message):
    with pytest.raises(ValueError, match=message):
        sweep.sweep(micro_config, "v5e-4", **asked)
    assert not compiler.asked


def test_a_sweep_does_not_rank_what_a_run_would_refuse(compiler, micro):
    packed, lines = make_config(micro | {"data.pack": True, "data.clips_per_row": 4}), []
    options = {"batches": [16, 18], "remats": ["all"], "meshes": ["1x4x1"], "say": lines.append}
    assert [result["batch_size"] for result in sweep.sweep(packed, "v5e-4", **options)] == [16]
    assert "train.batch_size: 18" in lines[1]


def test_the_command_prints_json_or_a_page(compiler, config_file, capsys):
    line = ["plan", "--config", config_file, "--topology", "v5e-4"]
    assert cli.main([*line, "--json", "--config.train.batch_size=16"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {"fits", "hbm_gb", "step_seconds", "samples_per_second", "mfu"} <= result.keys()
    assert result["batch_size"] == 16
    assert cli.main(line) == 0
    page = capsys.readouterr().out
    assert page.startswith("v5e-4: fits, 5.00 of 16.91 GB") and "all-gather" in page
    assert cli.main([*line, "--sweep", "--json", "--batch", "8", "16", "--remat=all", "--mesh=1x4x1"]) == 0
    assert [row["batch_size"] for row in json.loads(capsys.readouterr().out)] == [16, 8]


@pytest.mark.parametrize(
    ("extra", "status", "message"),
    [
        (["--topology=v9"], 1, "--topology v9: expected a name such as v5e-256"),
        (["--topology=v5e-4", "--config.train.batchsize=3"], 1, "did you mean train.batch_size?"),
        (["--topology=v5e-4", "--batch=8"], 2, "--batch goes with --sweep"),
        ([], 2, "--topology must be given"),
    ],
)
def test_mistakes_are_told(compiler, config_file, capsys, extra, status, message):
    assert cli.main(["plan", "--config", config_file, *extra]) == status
    assert message in capsys.readouterr().err
