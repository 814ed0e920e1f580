"""The `desta-jax` command: one verb per stage, each a thin door that imports its room when called."""

from __future__ import annotations

import difflib
import os
import sys
import textwrap
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import flags

from desta_jax import __version__

FAILED, USAGE, INTERRUPTED = 1, 2, 130  # exit statuses
OVERRIDE = "config_override"  # where --config.KEY=VALUE goes


@dataclass(frozen=True)
class Verb:
    """A stage, as the command line offers it: adding one is a function that defines flags, one that runs, an entry."""

    summary: str
    usage: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues], int | None]  # gives an exit status, None for 0
    required: tuple[str, ...]
    examples: tuple[str, ...]
    notes: str = ""


class UsageError(ValueError):
    """The command line itself is wrong."""


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
    return _run(name, rest)


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
    try:
        values = _parse(name, arguments)
        flags.FLAGS.mark_as_parsed()  # libraries that read absl flags of their own get the defaults
        status = VERBS[name].run(values)
        sys.stdout.flush()
        return status or 0
    except UsageError as error:
        print(f"desta-jax {name}: {error}. See desta-jax {name} --help", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print(f"\ndesta-jax {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough, as in `desta-jax ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        if show_traceback:
            traceback.print_exc()
        print(f"desta-jax {name}: {error}", file=sys.stderr)
        return FAILED


def _parse(name: str, arguments: Sequence[str]) -> flags.FlagValues:
    """The verb's flags with the values given; raises UsageError."""
    values = _flags_of(name)
    lists = {flag for flag in values if isinstance(values[flag], flags.MultiFlag)}
    arguments = _spread_lists([_as_override(argument) for argument in arguments], lists)
    try:
        _, *extra = values([name, *arguments])
    except flags.UnrecognizedFlagError as error:
        raise UsageError(f"there is no flag --{error.flagname}{_suggest(error.flagname, values)}") from error
    except flags.Error as error:
        raise UsageError(str(error).rstrip(".")) from error
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
    """`--manifest a b` as `--manifest=a --manifest=b`, so that a shell's *.jsonl works."""
    spread, current = [], None
    for argument in arguments:
        if argument.startswith("--"):
            name, equals, _ = argument[2:].partition("=")
            current = name if name in lists else None
            spread += [argument] if equals or not current else []
        else:
            spread.append(f"--{current}={argument}" if current else argument)
    return spread


def _suggest(name: str, names) -> str:
    near = difflib.get_close_matches(name, list(names), 1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _convert_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("llm", None, "Llama 3, Qwen2.5 or Qwen3: a Hugging Face folder or NAME[@REVISION]", values)
    flags.DEFINE_string("encoder", None, "Whisper, of any size: a Hugging Face folder or NAME[@REVISION]", values)
    flags.DEFINE_string("adapter", None, "a folder from `export` or the PyTorch reference, to start from", values)
    flags.DEFINE_string("out", None, "the folder to write", values)
    flags.DEFINE_bool("overwrite", False, "replace the folder if it is there", values)


def _convert(values: flags.FlagValues) -> None:
    from desta_jax.weights.convert import convert

    convert(values.llm, values.encoder, values.out, adapter=values.adapter, overwrite=values.overwrite, progress=_say)
    _say(f"{values.out} is made")


def _records_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_multi_string(
        "manifest", [], "rows in AQA5M's form: one JSON lines file or several", flag_values=values
    )
    flags.DEFINE_string("audio_root", None, "the folder under which the rows' audio paths lie", values)
    flags.DEFINE_string("out", None, "the folder of the records", values)
    flags.DEFINE_string("name", "desta_aqa5m", "of the dataset, in the shards' names", values)
    flags.DEFINE_string("split", "train", "of the dataset, in the shards' names", values)
    flags.DEFINE_integer("rows_per_shard", 0, "in place of --shards: how many rows in each", 0, flag_values=values)
    flags.DEFINE_integer("shards", 0, "how many; 0 chooses by the number of rows", 0, flag_values=values)
    flags.DEFINE_integer("workers", 0, "processes; 0 is one a core", 0, flag_values=values)
    flags.DEFINE_float("max_rejected", 0.01, "the fraction of rows that may be unusable", 0, 1, flag_values=values)
    flags.DEFINE_bool("verify", False, "check every checksum of the records in --out, and decode them", values)
    flags.DEFINE_bool("describe", False, "print counts, hours and lengths of the records in --out", values)


def _records(values: flags.FlagValues) -> None:
    if not (values.manifest or values.verify or values.describe):
        raise UsageError("--manifest must be given, or --verify or --describe for records that are there")
    if values.manifest:
        if not values.audio_root:
            raise UsageError("--audio_root must be given")
        _write_records(values)
    if values.verify:
        _verify_records(values.out, values.workers)
    if values.describe:
        from desta_jax.records.describe import describe, format_description

        print(format_description(describe(values.out, workers=values.workers)))


def _write_records(values: flags.FlagValues) -> None:
    from desta_jax.records.write import write_records

    write_records(
        values.manifest,
        values.audio_root,
        values.out,
        name=values.name,
        split=values.split,
        shards=values.shards,
        rows_per_shard=values.rows_per_shard,
        workers=values.workers,
        max_rejected_fraction=values.max_rejected,
        report=_say,
    )


def _verify_records(folder: str, workers: int) -> None:
    from desta_jax.records.verify import verify

    report = verify(folder, workers=workers, report=_say)
    print(f"{folder}: {report.records} good records with {report.clips} clips")
    if report.problems:
        raise ValueError(f"{folder} is damaged; make these shards again:\n  " + "\n  ".join(report.problems))


def _train_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("config", None, "a Python file with get_config(), such as configs/smol.py", values)
    flags.DEFINE_string("workdir", None, "the folder of the run", values)
    flags.DEFINE_multi_string(OVERRIDE, [], "changes a key of the config: --config.train.steps=100", values)


def _train(values: flags.FlagValues) -> int:
    from desta_jax.config import load_config
    from desta_jax.training.loop import train

    return train(load_config(values.config, values[OVERRIDE].value), values.workdir)


def _export_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("workdir", None, "the folder of the run", values)
    flags.DEFINE_integer("step", None, "of the checkpoint to export; without it, the newest", 0, flag_values=values)
    flags.DEFINE_string("out", None, "the folder to write", values)
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "of the written weights", values)
    flags.DEFINE_bool("overwrite", False, "replace an older export in the folder", values)


def _export(values: flags.FlagValues) -> None:
    from desta_jax.training.export import export

    export(values.workdir, values.out, step=values.step, dtype=values.dtype, overwrite=values.overwrite)
    _say(f"{values.out} is made")


VERBS = {
    "convert": Verb(
        summary="Hugging Face weights to the one folder that a run needs",
        usage="--llm DIR_OR_NAME --encoder DIR_OR_NAME [--adapter DIR] --out DIR",
        define=_convert_flags,
        run=_convert,
        required=("llm", "encoder", "out"),
        examples=(
            "desta-jax convert --llm Qwen/Qwen2.5-7B-Instruct --encoder openai/whisper-large-v3 --out models/qwen",
            "desta-jax convert --llm folders/qwen --encoder folders/whisper --adapter folders/desta --out models/mine",
        ),
    ),
    "records": Verb(
        summary="rows in AQA5M's form and their audio to sharded, indexed TFRecords",
        usage="--manifest FILE ... --audio_root DIR --out DIR | --out DIR --verify | --out DIR --describe",
        define=_records_flags,
        run=_records,
        required=("out",),
        examples=(
            "desta-jax records --manifest aqa5m/*.jsonl --audio_root audio --out records/train",
            "desta-jax records --out records/train --verify --describe",
        ),
        notes="A job that was stopped goes on when started again. A row whose audio is missing or broken goes to "
        "rejected.jsonl with the reason.",
    ),
    "train": Verb(
        summary="train the adapter, or resume where the run stopped",
        usage="--config FILE --workdir DIR [--config.KEY=VALUE ...]",
        define=_train_flags,
        run=_train,
        required=("config", "workdir"),
        examples=(
            "desta-jax train --config configs/smol.py --workdir runs/smol --config.model.checkpoint=models/smol",
            "desta-jax train --config configs/paper.py --workdir gs://bucket/runs/paper --config.mesh.fsdp=16",
        ),
        notes="Any key of the config can be changed from the command line; a wrong key is an error that suggests the "
        "right one. A folder that holds a checkpoint is resumed. SIGTERM and Ctrl-C save first, and the exit status is "
        "then 75.",
    ),
    "export": Verb(
        summary="a run's adapter as a folder that the PyTorch reference loads",
        usage="--workdir DIR [--step N] --out DIR",
        define=_export_flags,
        run=_export,
        required=("workdir", "out"),
        examples=("desta-jax export --workdir runs/smol --out adapters/smol",),
    ),
}
