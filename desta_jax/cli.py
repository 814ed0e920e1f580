"""The `desta-jax` command: reads its line, opens the verb's door, turns errors into a line and an exit status."""

from __future__ import annotations

import difflib
import itertools
import math
import os
import sys
import textwrap
import traceback
from collections.abc import Sequence

from absl import flags

from desta_jax import __version__
from desta_jax.verbs import construct, convert, evaluate, export, generate, plan, records, train
from desta_jax.verbs.verb import OVERRIDE, UsageError, say

VERBS = {
    "convert": convert.VERB,
    "records": records.VERB,
    "train": train.VERB,
    "export": export.VERB,
    "generate": generate.VERB,
    "evaluate": evaluate.VERB,
    "construct": construct.VERB,
    "plan": plan.VERB,
}
FAILED, USAGE, INTERRUPTED, UNREAD = 1, 2, 130, 141  # exit statuses; the last two as of SIGINT and SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line; returns its exit status: 0 done, 1 the work failed, 2 the command line is wrong."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")  # that there is no PyTorch is as it should be
    if not arguments or arguments[0] in ("--help", "-h", "help"):
        print(overview())
        return 0
    if arguments[0] == "--version":
        print(f"desta_jax {__version__}")
        return 0
    name, *rest = arguments
    if name not in VERBS:
        print(
            f"desta-jax: there is no verb {name!r}{_suggest(name, VERBS)}. Verbs: {', '.join(VERBS)}", file=sys.stderr
        )
        return USAGE
    if {"--help", "-h"} & set(rest):
        print(describe(name))
        return 0
    status = _run(name, rest)
    _drop_unread()
    return status


def overview() -> str:
    """What `desta-jax --help` says."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items())
    return (
        "desta-jax: DeSTA2.5-Audio in JAX and Flax\n\n"
        f"Usage: desta-jax VERB [flags]\n\nVerbs, in the order of a project:\n{verbs}\n\n"
        "desta-jax VERB --help explains a verb, with examples. desta-jax --version prints the version."
    )


def describe(name: str) -> str:
    """What `desta-jax VERB --help` says."""
    verb, values = VERBS[name], _flags_of(name)
    lines = [f"desta-jax {name}: {verb.summary}", "", f"Usage: desta-jax {name} {verb.usage}", "", "Flags:"]
    for flag_name in values:
        flag = values[flag_name]
        default = "" if flag.default in (None, False, []) else f" (default: {flag.default})"
        shown = "config.KEY=VALUE" if flag_name == OVERRIDE else flag_name
        help_text = flag.help.split(";\n")[0]  # absl adds a line of its own to flags that can be repeated
        lines += [f"  --{shown}", textwrap.indent(textwrap.fill(f"{help_text}{default}", 100), " " * 6)]
    if verb.notes:
        lines += ["", textwrap.fill(verb.notes, 106)]
    return "\n".join([*lines, "", "Examples:", *(f"  {example}" for example in verb.examples)])


def _run(name: str, arguments: list[str]) -> int:
    show_traceback = "--traceback" in arguments or "DESTA_JAX_TRACEBACK" in os.environ
    status = 0
    try:
        values = _parse(name, arguments)
        flags.FLAGS.mark_as_parsed()  # libraries that read absl flags of their own get the defaults
        status = VERBS[name].run(values) or 0
        sys.stdout.flush()
        return status
    except UsageError as error:
        say(f"desta-jax {name}: {error}. See desta-jax {name} --help")
        return USAGE
    except KeyboardInterrupt:
        say(f"\ndesta-jax {name}: interrupted")
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough, as in `desta-jax ... | head`
        return status or UNREAD
    except (ValueError, OSError) as error:
        if show_traceback:
            traceback.print_exc()
        say(f"desta-jax {name}: {error}")
        if not show_traceback:
            sys.unraisablehook = lambda _: None  # reads that were under way when one failed say so, each, as they go
        return FAILED


def _drop_unread() -> None:
    """Gives up what can't be written: Python tries again at its end, and would make the exit status 120."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _parse(name: str, arguments: Sequence[str]) -> flags.FlagValues:
    """The verb's flags with the values given; raises UsageError."""
    values = _flags_of(name)
    lists = {flag for flag in values if isinstance(values[flag], flags.MultiFlag)}
    arguments = _spread_lists([_as_override(argument) for argument in arguments], lists)
    try:
        _, *extra = values([name, *arguments])
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"there is no flag --{error.flagname}{_suggest(error.flagname, values, '--')}") from error
    except flags.Error as error:
        raise UsageError(str(error).rstrip(".")) from error
    for flag in values:
        if isinstance(values[flag].value, float) and not math.isfinite(values[flag].value):  # absl's bounds let NaN by
            raise UsageError(f"--{flag}: must be a number, not {values[flag].value}")
    if extra:
        raise UsageError(f"unexpected argument {extra[0]!r}")
    if missing := [f"--{flag}" for flag in VERBS[name].required if not values[flag].value]:
        raise UsageError(f"{' and '.join(missing)} must be given")
    return values


def _flags_of(name: str) -> flags.FlagValues:
    values = flags.FlagValues()
    values.set_gnu_getopt(True)
    VERBS[name].define(values)
    flags.DEFINE_bool("traceback", False, "show where an error came from", values)
    return values


def _as_override(argument: str) -> str:
    """--config.a.b=value as a value of the flag that collects them."""
    if not argument.startswith("--config."):
        return argument
    if "=" not in argument:
        raise UsageError(f"{argument}: write {argument}=VALUE, with the equals sign")
    return f"--{OVERRIDE}={argument.removeprefix('--config.')}"


def _spread_lists(arguments: Sequence[str], lists: set[str]) -> list[str]:
    """`--manifest a b` as `--manifest=a --manifest=b`, so that a shell's *.jsonl works; raises UsageError."""
    spread, current = [], None
    for argument, following in itertools.pairwise([*arguments, "--"]):
        if argument.startswith("-"):
            name, equals, _ = argument.lstrip("-").partition("=")
            current = name if name in lists else None
            if current and not equals and following.startswith("-"):
                raise UsageError(f"--{name} needs a value")
            spread += [argument] if equals or not current else []
        else:
            spread.append(f"--{current}={argument}" if current else argument)
    return spread


def _suggest(name: str, names, before: str = "") -> str:
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f" (did you mean {before}{near[0]}?)" if near else ""
