"""`desta-jax construct`: rows to train on, which the language model writes itself."""

from __future__ import annotations

from absl import flags

from desta_jax.verbs.verb import Verb, say

_LONGEST_WORK = 30 * 24 * 3600  # seconds: a process that is done waits for the others, or JAX ends them all


def define(values: flags.FlagValues) -> None:
    text, number, fraction = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    text("metadata", None, "CSV, TSV, JSON, JSONL or Parquet; or a folder of Kaldi's or Hugging Face datasets'", values)
    text("source", None, "what its columns mean: a name of data/sources, or a TOML file as those there", values)
    model = "the folder from `convert` whose language model writes the responses; with --endpoint, is asked how likely "
    text("model", None, model + "it finds them", values)
    text("out", None, "the folder to write", values)
    text("audio_root", None, "the folder of the audio: clips without audio are left out, durations are taken", values)
    flags.DEFINE_bool("describe_only", False, "print what would be said of each clip, and write nothing", values)
    flags.DEFINE_list("measure", [], "from the audio: duration, pitch, loudness, rate, snr", flag_values=values)
    flags.DEFINE_multi_string("instructions", [], "folders of more instruction files", flag_values=values)
    number("rows_per_clip", 1, "requests about each clip", 1, flag_values=values)
    fraction("several_clips", 0.05, "the share of requests about two or three clips", 0, 1, flag_values=values)
    fraction("transcripts", 1.0, "the share of rows with the clips' transcripts beside them", 0, 1, flag_values=values)
    flags.DEFINE_list("leave_out", [], "categories of instructions to hold out of training", flag_values=values)
    only = "a folder of rows: ask nothing else than what is answered there, to compare this writer's rows with those"
    text("answered_in", None, only, values)
    faithful = "also drop answers about an attribute that do not name its value, or name another"
    flags.DEFINE_bool("faithful", False, faithful, values)
    number("limit", None, "only the first so many clips", 1, flag_values=values)
    number("seed", 0, "of the instructions drawn and of the responses", flag_values=values)
    fraction("temperature", 0.05, "of the responses; 0 is greedy", 0, flag_values=values)
    fraction("top_p", 1.0, "only the likeliest tokens of this probability are drawn", 0, 1, flag_values=values)
    number("max_new_tokens", 256, "of a response; one that reaches it is dropped", 1, flag_values=values)
    text("endpoint", None, "another writer: the address of an OpenAI-compatible endpoint, up to /v1", values)
    text("endpoint_model", None, "the name of the model there", values)
    text("endpoint_key", "OPENAI_API_KEY", "the environment variable that holds its key", values)
    number("at_once", 16, "requests to the endpoint under way at a time", 1, flag_values=values)
    flags.DEFINE_enum("dtype", None, ["bfloat16", "float32"], "by default float32 on a CPU, else bfloat16", values)
    number("tensor", 1, "devices that share a copy of the model; the copies share the requests", 1, flag_values=values)
    number("batch_size", 32, "requests answered together", 1, flag_values=values)
    number("shard", 512, "requests in a file of rows: what a killed run loses at most", 1, flag_values=values)


def run(values: flags.FlagValues) -> None:
    from desta_jax.construct.generators import Writing
    from desta_jax.construct.run import construct
    from desta_jax.distributed import start

    if not values.describe_only:
        start(shutdown_timeout_seconds=_LONGEST_WORK)
    construct(
        values.metadata,
        values.source,
        values.model,
        values.out,
        audio_root=values.audio_root,
        describe_only=values.describe_only,
        seed=values.seed,
        measure=values.measure,
        instructions=values.instructions,
        rows_per_clip=values.rows_per_clip,
        several_clips=values.several_clips,
        transcripts=values.transcripts,
        leave_out=values.leave_out,
        answered_in=values.answered_in,
        faithful=values.faithful,
        limit=values.limit,
        endpoint=values.endpoint,
        endpoint_model=values.endpoint_model,
        endpoint_key=values.endpoint_key,
        at_once=values.at_once,
        writing=Writing(values.temperature, values.top_p, values.max_new_tokens),
        dtype=values.dtype or "",
        tensor=values.tensor,
        batch_size=values.batch_size,
        shard=values.shard,
        show=print,
        say=say,
    )


VERB = Verb(
    summary="rows to train on, from metadata alone: the language model writes the responses itself",
    usage="--metadata FILE_OR_DIR --source NAME --model DIR --out DIR | ... --describe_only",
    define=define,
    run=run,
    required=("metadata", "source"),
    examples=(
        "desta-jax construct --metadata ESC-50/meta/esc50.csv --source esc50 --describe_only --limit 5",
        "desta-jax construct --metadata ESC-50/meta/esc50.csv --source esc50 --audio_root ESC-50 --model models/smol "
        "--out rows/esc50",
        "desta-jax construct --metadata my.csv --source my.toml --audio_root audio --measure pitch,loudness "
        "--rows_per_clip 3 --model models/llama --out rows/mine",
        "desta-jax construct --metadata my.csv --source speech --endpoint http://localhost:8000/v1 "
        "--endpoint_model some-model --out rows/other",
    ),
    notes="OUT holds rows-*.jsonl for `desta-jax records`, outcomes/ (what became of each request), problems.jsonl "
    "(what was wrong with the metadata, row by row), report.json, plots/ and a dataset card. Audio that the metadata "
    "holds is written to OUT/audio: that is the --audio_root of `desta-jax records`. A run that was stopped goes on "
    "when started again. Several processes (JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID; a TPU slice "
    "needs none of them) write a part each.",
)
