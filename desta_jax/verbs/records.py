"""`desta-jax records`: rows and audio to shards."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import UsageError, Verb, say


def define(values: flags.FlagValues) -> None:
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


def run(values: flags.FlagValues) -> None:
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
        report=say,
    )


def _verify_records(folder: str, workers: int) -> None:
    from desta_jax.records.verify import verify

    report = verify(folder, workers=workers, report=say)
    print(f"{folder}: {report.records} good records with {report.clips} clips")
    if report.problems:
        raise ValueError(
            f"{folder} is damaged; delete it and make the records again, or copy these files again:\n  "
            + "\n  ".join(report.problems)
        )


VERB = Verb(
    summary="rows in AQA5M's form and their audio to sharded, indexed TFRecords",
    usage="--manifest FILE ... --audio_root DIR --out DIR | --out DIR --verify | --out DIR --describe",
    define=define,
    run=run,
    required=("out",),
    examples=(
        "desta-jax records --manifest aqa5m/*.jsonl --audio_root audio --out records/train",
        "desta-jax records --out records/train --verify --describe",
    ),
    notes="A job that was stopped goes on when started again. A row whose audio is missing or broken goes to "
    "rejected.jsonl with the reason.",
)
