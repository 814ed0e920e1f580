"""The rules that keep the house: imports run one way, a small subset of Flax, nothing left about by accident."""

import ast
import importlib
import pathlib
import re
import subprocess
import sys

import jax
import pytest

import desta_jax
from desta_jax.construct.source import data_folder

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "desta_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
TOP_LEVEL = {"setup.py", "README.md", "LICENSE", "desta_jax", "configs", "data", "launch", "tests"}
FLOORS = [  # from the bottom up; a room imports from the floors below it, never from its own floor or above
    {"__init__", "batch", "tree", "config", "files", "programs", "endpoint", "clock", "machine", "processes"}
    | {"distributed"},
    {"sharding", "audio"},
    {"records"},
    {"models"},
    {"inputs"},
    {"weights"},
    {"training", "generation"},
    {"evaluation", "construct", "serving", "plan"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
NNX = {"Module", "Param", "List", "split", "merge", "state", "to_pure_dict", "replace_by_pure_dict", "initializers"}
FOREIGN = {"torch", "tensorflow", "flax.linen", "jax.experimental.pjit", "jax.experimental.shard_map"}
MACHINE_PATH = re.compile(r"(?<![\w.}$])/(?:work|root|home|Users|mnt|content)/\w")

NEW_IN_BASH_4 = re.compile(r"\b(mapfile|readarray|(declare|local|readonly) -A)\b|\$\{\w+(@[A-Z]|,,?|\^\^?)\}")


def imports(file):
    """Dotted names that a file imports; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(file):
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_imports_run_from_the_bottom_up(file):
    room = room_of(file)
    assert room in FLOOR_OF, f"{room} is a new room: give it a floor"
    for name in imports(file):
        other = name.split(".")[1] if name.startswith("desta_jax.") else None
        if other not in (None, room, "__version__"):
            assert FLOOR_OF[other] < FLOOR_OF[room], f"{room} imports {name}"
        assert not any(f"{name}.".startswith(f"{foreign}.") for foreign in FOREIGN), f"{name} is not for run time"


def test_no_import_cycle():
    modules = {module_of(file): file for file in FILES}
    graph = {
        module: {name if name in modules else name.rpartition(".")[0] for name in imports(file)}
        & modules.keys() - {module}
        for module, file in modules.items()
    }
    while leaves := {module for module, needs in graph.items() if not needs & graph.keys()}:
        graph = {module: needs for module, needs in graph.items() if module not in leaves}
    assert not graph, f"a cycle among {sorted(graph)}"


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_flax_is_used_in_its_small_subset(file):
    attributes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)]
    used = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "nnx"}
    assert used <= NNX, f"{sorted(used - NNX)} of flax.nnx: see NNX in this file for what is used here"
    flax = {name for name in imports(file) if name.split(".")[0] == "flax"}
    assert flax <= {"flax.nnx"}, f"write `from flax import nnx`, not {sorted(flax - {'flax.nnx'})}"


def tracked():
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [pathlib.Path(line) for line in listing.stdout.splitlines()]


def test_the_top_level_holds_what_it_should():
    names = {path.parts[0] for path in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


def test_no_path_of_one_machine():
    for path in tracked():
        if path.suffix in {".py", ".sh", ".md", ".yaml", ".lock", ".toml", ".ini"} and (ROOT / path).is_file():
            found = MACHINE_PATH.search((ROOT / path).read_text())
            assert not found, f"{path} names {found[0]}..."


def test_construct_finds_its_data_in_an_installed_package(tmp_path, monkeypatch):
    built = tmp_path / "desta_jax"
    subprocess.run([sys.executable, "setup.py", "-q", "build_py", "--build-lib", tmp_path], cwd=ROOT, check=True)
    monkeypatch.setattr(desta_jax, "__file__", str(built / "__init__.py"))
    for name in ("sources", "instructions"):
        files = {file.name: file.read_bytes() for file in data_folder(name).iterdir()}
        assert files == {file.name: file.read_bytes() for file in (ROOT / "data" / name).iterdir()}


@pytest.mark.parametrize(
    ("name", "measure", "arguments"),
    [("train_step", "ours", []), ("plan", "_peak", ["cpu"])],
    ids=["train_step", "plan"],
)
def test_a_benchmark_of_the_cpu_measures_no_gpu(name, measure, arguments, monkeypatch):
    class Measured(Exception):
        """As far as the test goes."""

    def stop(*_):
        raise Measured

    benchmark = importlib.import_module(f"benchmarks.{name}")
    monkeypatch.setattr(benchmark, measure, stop)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    platforms = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)  # the fastest there is
    try:
        with pytest.raises(Measured):
            benchmark.main()
        assert jax.config.jax_platforms == "cpu"
    finally:
        jax.config.update("jax_platforms", platforms)


def test_a_script_that_needs_bash_4_says_so():
    """macOS comes with bash 3.2."""
    for path in tracked():
        text = (ROOT / path).read_text() if path.suffix == ".sh" else ""
        if NEW_IN_BASH_4.search(text):
            assert "BASH_VERSINFO" in text or "/common.sh" in text, path
