"""The whole of `desta-jax construct`: metadata to descriptions, requests, responses, rows and a report."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import json
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
from etils import epath

from desta_jax.construct.clip import Clip
from desta_jax.construct.describe import build_clips
from desta_jax.construct.drafts import Draft, fill, read_drafts
from desta_jax.construct.generators import PAPER, ForeignModel, OwnModel, Writing
from desta_jax.construct.instructions import load_pool
from desta_jax.construct.measure import measure_drafts, with_measures
from desta_jax.construct.metadata import Problem, Row, read_rows
from desta_jax.construct.perplexity import overall, perplexities
from desta_jax.construct.quality import FAITHFUL, FILTERS
from desta_jax.construct.report import check_installed, is_finished, summarise, write_report
from desta_jax.construct.rows import Request, plan_requests
from desta_jax.construct.source import Source, load_source
from desta_jax.construct.write import SHARD, check_plan, cut_into_shards, read_lines, take_answered, write_rows
from desta_jax.endpoint import Endpoint
from desta_jax.files import is_remote, write_whole
from desta_jax.generation.text import Backbone, open_backbone
from desta_jax.machine import default_dtype
from desta_jax.weights.folder import ModelFolder

SCORED = 200  # rows whose perplexity is measured


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A metadata file, understood."""

    source: Source
    clips: list[Clip]
    problems: list[Problem]


def describe(
    metadata: str, source: str, *, audio_root: str | None = None, measure: Sequence[str] = (), seed: int = 0
) -> Corpus:
    """What is known of each clip.

    Args:
        metadata: a table, or a folder of Kaldi's or Hugging Face datasets' kind.
        source: a name of data/sources, or a TOML file.
        audio_root: folder of the audio; where it is given, clips without audio are left out, and durations and what
            the source or `measure` wants measured are taken from it.
        measure: names of measure.STANDARD.
        seed: decides among several captions of a clip.

    Raises:
        FileNotFoundError, ValueError: the metadata or the source as a whole cannot be used.
    """
    form = with_measures(load_source(source), measure)
    if measure and audio_root is None:
        raise ValueError("measuring needs the audio: give --audio_root")
    if audio_root is not None and not epath.Path(audio_root).is_dir():
        raise FileNotFoundError(f"--audio_root: no such folder {audio_root}")
    drafts, problems = read_drafts(metadata, form, seed)
    if audio_root is not None:
        drafts, found = measure_drafts(drafts, form, audio_root)
        problems += found
    else:
        _take_durations(drafts, form)
    clips, found = build_clips(drafts, form)
    return Corpus(form, clips, problems + found)


def construct(
    metadata: str,
    source: str,
    model: str | None,
    out: str | None,
    *,
    audio_root: str | None = None,
    describe_only: bool = False,
    seed: int = 0,
    measure: Sequence[str] = (),
    instructions: Sequence[str] = (),
    rows_per_clip: int = 1,
    several_clips: float = 0.05,
    transcripts: float = 1.0,
    leave_out: Sequence[str] = (),
    answered_in: str | None = None,
    faithful: bool = False,
    limit: int | None = None,
    endpoint: str | None = None,
    endpoint_model: str | None = None,
    endpoint_key: str = "OPENAI_API_KEY",
    at_once: int = 16,
    writing: Writing = PAPER,
    dtype: str = "",
    tensor: int = 1,
    batch_size: int = 32,
    shard: int = SHARD,
    show: Callable[[str], None] = print,
    say: Callable[[str], None] = print,
) -> dict[str, Any] | None:
    """Self-generated rows from metadata, in a folder; goes on where an earlier call with the same arguments stopped.

    Args:
        metadata, source, audio_root, measure: as for `describe`.
        model: folder from `convert`; the language model in it writes the responses, or with `endpoint` is only asked
            how likely it finds them.
        out: folder to write (local or gs://).
        describe_only: print the descriptions and what is wrong with the metadata, and write nothing.
        seed: of the instructions drawn and of the responses.
        instructions: folders of further instruction files.
        rows_per_clip: requests about each clip.
        several_clips: share of the requests that are about two or three clips.
        transcripts: share of the rows whose clips have their transcripts beside them.
        leave_out: categories of instructions that are not drawn: to be held out of training.
        answered_in: a finished run's folder: what it has no row for is not asked. For rows of another writer, to
            compare with those there.
        faithful: also drop answers about an attribute that do not name its value, or name another.
        limit: only the first so many clips.
        endpoint, endpoint_model: an OpenAI-compatible address up to /v1, and the name of the model there.
        endpoint_key: the environment variable that holds its key.
        at_once: requests to the endpoint under way at a time.
        writing: how responses are drawn.
        dtype, tensor, batch_size: as for generation.text.open_backbone.
        shard: requests a shard.
        show: prints a description.
        say: prints a line on how the work goes.

    Returns:
        The report's numbers; None where other processes still write, or with describe_only.

    Raises:
        FileNotFoundError, ValueError: what was asked for cannot be done; bad rows are not among the reasons, they are
        named in OUT/problems.jsonl and left out.
    """
    if not describe_only:
        _check(out, model, endpoint, endpoint_model)
        pool = load_pool(instructions).without(leave_out)
        if audio_root is None:
            audio_root = extract_audio(metadata, source, epath.Path(out) / "audio", say)
    corpus = describe(metadata, source, audio_root=audio_root, measure=measure, seed=seed)
    clips = corpus.clips[:limit]
    if describe_only:
        _print_descriptions(clips, corpus.problems, show, say)
    if not clips:
        raise ValueError(f"{metadata} has no row that can be used{_most_common(corpus.problems)}")
    if describe_only:
        return None
    requests = list(plan_requests(clips, pool, seed, rows_per_clip, several_clips, transcripts))
    if not requests:
        raise ValueError(f"no instruction of the pool fits any of the {len(clips)} clips")
    if answered_in:
        requests = take_answered(epath.Path(answered_in), requests)
    folder = epath.Path(out)
    filters = FAITHFUL if faithful else FILTERS
    dtype = "" if endpoint else dtype or default_dtype()  # of what writes
    plan = _plan(corpus, requests, endpoint_model if endpoint else model, dtype, writing, seed, shard, filters)
    check_plan(folder, plan)
    if jax.process_index() == 0:
        write_whole(folder / "problems.jsonl", "".join(problem.to_json() + "\n" for problem in corpus.problems))
    _say_problems(corpus.problems, say)
    shards = cut_into_shards(requests, shard)
    report = folder / "report.json"
    if is_finished(folder, shards) and report.exists():
        known = json.loads(report.read_text())
        if "perplexity" in known or not model:
            say(f"construct: the {known['rows']} rows in {folder} are there")
            return known
    open_model = functools.partial(open_backbone, dtype=dtype, tensor=tensor, batch_size=batch_size)
    backbone = None if endpoint else open_model(model)
    if backbone:
        generator = OwnModel(backbone)
    else:
        generator = ForeignModel(Endpoint(endpoint, endpoint_model, endpoint_key, at_once))
    write_rows(shards, generator, folder, writing, seed, jax.process_index(), jax.process_count(), say, filters)
    if not is_finished(folder, shards):
        say("construct: this process is done; the report is written by the last one")
        return None
    if endpoint and model:
        backbone = open_model(model)
    return _report(folder, corpus, len(clips), plan, backbone, say)


def extract_audio(metadata: str, source: str, folder: epath.Path, say: Callable[[str], None]) -> str | None:
    """Writes the clips that the metadata itself holds (as Hugging Face datasets do) to files; None if it holds none."""
    form, found = load_source(source), False
    for row in read_rows(metadata, form, with_bytes=True):
        data = row.fields.get("audio.bytes") if isinstance(row, Row) else None
        name = fill(form.audio, row.fields) if data else ""
        if name:
            if is_remote(folder):
                raise ValueError(f"{metadata} holds its audio: write to a local --out, and copy that up")
            found, file = True, folder / name
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{row.place}: the clip's name {name!r} leads out of {folder}")
            if not file.exists():
                write_whole(file, data)  # a kill leaves no clip that is cut short
        elif isinstance(row, Row) and not found and not _may_hold_audio(row):
            return None
    if not found:
        return None
    say(f"construct: the clips that {metadata} holds are in {folder}, the --audio_root of `desta-jax records`")
    return str(folder)


def _may_hold_audio(row: Row) -> bool:
    """Whether rows like this one hold their clips, though this one's may be empty."""
    return "audio.bytes" in row.fields or ("audio" in row.fields and row.fields["audio"] is None)


def _report(
    folder: epath.Path, corpus: Corpus, clips: int, plan: dict[str, Any], backbone: Backbone | None, say: Callable
) -> dict[str, Any]:
    summary = summarise(folder, corpus.problems, clips)
    if backbone is not None:
        rows = list(read_lines(sorted(folder.glob("rows-*.jsonl"))))
        sample = random.Random(plan["seed"]).sample(rows, min(SCORED, len(rows)))
        say(f"construct: measuring the perplexity of {len(sample)} rows under {backbone.name}")
        found = overall(perplexities(backbone, sample, say))
        summary["perplexity"] = found and {"model": backbone.name, **found}
    write_report(folder, summary, plan)
    drops = ", ".join(f"{count} {name}" for name, count in summary["dropped"].items() if count)
    say(f"construct: {summary['rows']} rows of {summary['requests']} requests in {folder} (dropped: {drops or 'none'})")
    return summary


def _plan(
    corpus: Corpus,
    requests: Sequence[Request],
    generator: str,
    dtype: str,
    writing: Writing,
    seed: int,
    shard: int,
    filters: Iterable[str],
) -> dict[str, Any]:
    """What makes two runs the same: every request, and everything that decides a response."""
    digest = hashlib.sha256()
    for request in requests:
        asked = request.instruction
        judged_by = (asked.languages, asked.right, asked.wrong)
        digest.update(
            repr((request.id, request.reading(), request.messages(), judged_by)).encode("utf-8", "surrogatepass")
        )
    return {
        "source": corpus.source.name,
        "requests": len(requests),
        "requests_sha256": digest.hexdigest(),
        "generator": generator,
        "dtype": dtype,
        **dataclasses.asdict(writing),
        "seed": seed,
        "shard": shard,
        "filters": list(filters),
    }


def _check(out: str | None, model: str | None, endpoint: str | None, endpoint_model: str | None) -> None:
    """Raises ValueError for what is missing, before anything is read or written."""
    check_installed()
    if not out:
        raise ValueError("--out is missing: the folder to write")
    if endpoint_model and not endpoint:
        raise ValueError("--endpoint_model is a model at an endpoint: give its address as --endpoint")
    if endpoint and not endpoint_model:
        raise ValueError("--endpoint needs --endpoint_model, the name of the model there")
    if not endpoint and not model:
        raise ValueError("--model is missing: a folder from `desta-jax convert` (or --endpoint URL)")
    if model:
        ModelFolder(model)


def _take_durations(drafts: Sequence[Draft], source: Source) -> None:
    """Without audio, the duration in the metadata is the only thing measured that is known."""
    for attribute in source.attributes:
        if attribute.measure == "duration":
            for draft in drafts:
                if draft.duration is not None:
                    draft.numbers[attribute.name] = draft.duration


def _most_common(problems: Sequence[Problem]) -> str:
    """What is wrong with most rows, with the first of these."""
    if not problems:
        return ""
    counts = collections.Counter(problem.reason for problem in problems).most_common()
    first = next(problem for problem in problems if problem.reason == counts[0][0])
    told = ", ".join(f"{reason} {count}" for reason, count in counts)
    return f" ({told}); for example {first.place}: {first.detail}"


def _print_descriptions(
    clips: Sequence[Clip], problems: Sequence[Problem], show: Callable[[str], None], say: Callable[[str], None]
) -> None:
    for clip in clips:
        show(f"{clip.audio}\t{clip.describe()}")
    _say_problems(problems, say)


def _say_problems(problems: Sequence[Problem], say: Callable[[str], None]) -> None:
    for problem in problems[:20]:
        say(f"construct: {problem.place}: {problem.reason}: {problem.detail}")
    if len(problems) > 20:
        say(f"construct: and {len(problems) - 20} more problems (all are in problems.jsonl)")
