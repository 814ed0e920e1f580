"""The command line as a user meets it: help, suggestions, readable errors, exit statuses."""

import os
import shlex
import subprocess
import sys

import pytest
from absl import flags

from desta_jax import cli
from desta_jax.verbs.verb import OVERRIDE, Verb

FAILURES = {
    "value": ValueError("a.b is wrong"),
    "missing": FileNotFoundError("no file x"),
    "stop": KeyboardInterrupt(),
    "bug": TypeError("our own mistake"),
}


@pytest.fixture
def verb(monkeypatch):
    """A verb `try` that records what it was given, or fails as it is told to."""
    calls = []

    def define(values):
        flags.DEFINE_string("name", None, "a name", values)
        flags.DEFINE_multi_string("file", [], "files", flag_values=values)
        flags.DEFINE_multi_string(OVERRIDE, [], "a change", flag_values=values)

    def run(values):
        calls.append((values.name, values.file, values[OVERRIDE].value))
        failure = {
            "value": ValueError("a.b is wrong"),
            "missing": FileNotFoundError("no file x"),
            "stop": KeyboardInterrupt(),
        }
        if values.name in failure:
            raise failure[values.name]
        if values.name == "bug":
            raise TypeError("our own mistake")

    monkeypatch.setitem(
        cli.VERBS, "try", Verb("a try", "--name N", define, run, ("name",), ("desta-jax try --name N",))
    )
    return calls


def test_help_lists_every_verb_without_importing_jax():
    code = "import sys; from desta_jax import cli; cli.main(['--help']); assert 'jax' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, verb in cli.VERBS.items():
        assert f"  {name} " in shown and verb.summary in shown


@pytest.mark.parametrize("name", sorted(cli.VERBS))
def test_a_verbs_help_explains_its_flags_and_its_examples_parse(name, capsys):
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"--{flag}" in shown for flag in cli.VERBS[name].required)
    for example in cli.VERBS[name].examples:
        command, called, *arguments = shlex.split(example)
        assert (command, called) == ("desta-jax", name)
        cli._parse(name, arguments)


def test_a_misspelt_verb_is_corrected(capsys):
    assert cli.main(["trian"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nmae=x"], "no flag --nmae (did you mean --name?)"),
        ([], "--name must be given"),
        (["--name=x", "y"], "unexpected argument 'y'"),
        (["--file", "--name=x"], "--file needs a value"),
        (["--name=x", "--file=a", "--file"], "--file needs a value"),
        (["--name=x", "--config.a.b", "3"], "write --config.a.b=VALUE"),
    ],
)
def test_a_wrong_command_line_says_how_to_write_it(verb, capsys, arguments, message):
    assert cli.main(["try", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown and shown.startswith("desta-jax try: ") and "desta-jax try --help" in shown
    assert not verb


def test_numbers_that_are_none_are_refused(capsys):
    for name, given in {"construct": ["--metadata=m", "--source=s"], "generate": ["--model=m"]}.items():
        for value in ("nan", "inf"):
            assert cli.main([name, *given, f"--temperature={value}"]) == 2
            assert f"--temperature: must be a number, not {value}" in capsys.readouterr().err


def test_lists_and_config_changes_arrive(verb):
    assert cli.main(["try", "--file", "a", "b", "--config.k.l=3", "--file=c", "--name", "me", "--config.m=(1, 2)"]) == 0
    assert verb == [("me", ["a", "b", "c"], ["k.l=3", "m=(1, 2)"])]
    assert cli.main(["try", "--file", "a", "b", "-name", "me"]) == 0  # absl takes one dash for two
    assert verb[1:] == [("me", ["a", "b"], [])]


@pytest.mark.parametrize(("name", "message"), [("value", "a.b is wrong"), ("missing", "no file x")])
def test_a_users_error_is_one_line(verb, capsys, name, message):
    assert cli.main(["try", "--name", name]) == 1
    assert capsys.readouterr().err == f"desta-jax try: {message}\n"


def test_a_traceback_can_be_asked_for(verb, capsys, monkeypatch):
    assert cli.main(["try", "--name=value", "--traceback"]) == 1
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.setenv("DESTA_JAX_TRACEBACK", "1")
    assert cli.main(["try", "--name=value"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_interrupt_is_quiet_and_a_bug_is_loud(verb, capsys):
    assert cli.main(["try", "--name=stop"]) == 130
    assert "Traceback" not in capsys.readouterr().err
    with pytest.raises(TypeError):
        cli.main(["try", "--name=bug"])


@pytest.mark.parametrize(
    ("work", "status"),
    [
        ("print()", 141),
        ("raise BrokenPipeError", 141),
        ("print(); return 75", 75),
        ("say('saved'); return 75", 75),
        ("print(); raise KeyboardInterrupt", 130),
    ],
)
def test_output_that_nobody_reads_is_no_success(work, status):
    """As after Ctrl-C in `desta-jax ... 2>&1 | tee log`, which ends tee as well."""
    code = f"""
import sys
from desta_jax import cli
from desta_jax.verbs.verb import Verb, say
def run(values): {work}
cli.VERBS["try"] = Verb("a try", "", lambda values: None, run, (), ())
sys.exit(cli.main(["try"]))
"""
    read, write = os.pipe()
    os.close(read)
    buffered = os.environ | {"PYTHONUNBUFFERED": ""}
    with open(write, "w") as pipe:
        done = subprocess.run([sys.executable, "-c", code], stdout=pipe, stderr=pipe, env=buffered)
    assert done.returncode == status
