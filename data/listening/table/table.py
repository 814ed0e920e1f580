"""The table of a model that hears: what it perceives, and what of the language model's own ways it keeps.

    python data/listening/table/table.py --corpus DIR --model CONVERTED --adapter own=EXPORT labels=EXPORT --out OUT

Runs of a kind with other seeds are named own/1, own/2, ... Answers go to OUT/NAME/PART as they come, and the same
command goes on where it was stopped; OUT gets table.json (every number with its count and 95 % interval), table.md and
table.png.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import divergence
import formats
import held_out
import hops
import numpy as np
import perception
import show
import text_only
import trained
from ask import Hearer, KeepingEar, Reader, open_reader, transcribe, zeroed
from figures import Figure

from desta_jax import generation, tree
from desta_jax.evaluation.answers import Answerer, newest, predict, whole_lines
from desta_jax.evaluation.question import Question
from desta_jax.generation import Model
from desta_jax.generation.text import Backbone

PARTS = ("perception", "sakura", "formats", "divergence", "text")
READER = "reads the description"  # the language model alone
NOTHING = "told nothing"
TRAINED_ON = "trained on"
TRANSCRIPTS = ("auto", "given", "none")


@dataclasses.dataclass(frozen=True)
class Asked:
    """The questions of each part."""

    perception: Sequence[Question] = ()
    sakura: Sequence[Question] = ()
    formats: Sequence[Question] = ()
    divergence: Sequence[Question] = ()
    text: Sequence[Question] = ()


class Table:
    """Asks whoever has not answered yet, and puts the numbers together."""

    def __init__(self, options: argparse.Namespace):
        self.options, self.out = options, Path(options.out)
        self.clips = held_out.read_clips(Path(options.corpus), say)
        self.asked = self._questions()
        self.report: dict[str, Any] = self._kept() | {part: {} for part in options.parts}
        self._say_what_was_trained_on()

    def _questions(self) -> Asked:
        options = self.options
        if "sakura" in options.parts and not options.sakura:
            raise ValueError("the part sakura needs --sakura, a checkout of ckyang1124/SAKURA; or name other --parts")
        makers = {
            "perception": lambda: perception.ask(self.clips, options.clips, options.real_clips),
            "sakura": lambda: hops.ask(Path(options.sakura)),
            "formats": lambda: formats.ask(self.clips, options.format_clips),
            "divergence": lambda: divergence.ask(self.clips, options.divergence_clips),
            "text": text_only.ask,
        }
        asked = Asked(**{part: makers[part]() for part in options.parts})
        for part in options.parts:
            say(f"{part}: {len(getattr(asked, part))} questions")
        return asked

    def _settings(self) -> dict[str, Any]:
        """What must be the same for parts of one table."""
        options = self.options
        return {
            "model": options.model,
            "dtype": self.dtype,
            "transcripts": options.transcripts,
            "clips a value": {"made": options.clips, "real": options.real_clips},
            "clips for formats": options.format_clips,
            "clips of a kind for divergence": options.divergence_clips,
            "perception": "an answer is right if it names the true value and no other of those asked about",
            "sakura": "no judge: right if a form of the true option's text, or its letter, is named and no other",
            "interval": "Wilson, 95 %; of means by Student's t; of ratios a bootstrap over clips",
        }

    def _kept(self) -> dict[str, Any]:
        """Parts of an earlier table that are not made now.

        Raises:
            ValueError: they were made with other settings.
        """
        file = self.out / "table.json"
        before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        others = [part for part in PARTS if part in before and part not in self.options.parts]
        now = {"settings": self._settings(), "rows": list(self.options.adapter)}
        if others and (changed := [key for key, value in now.items() if before.get(key) != value]):
            raise ValueError(
                f"{file} has {', '.join(others)} with other {' and '.join(changed)}; "
                "choose another --out, or make all --parts again"
            )
        self.earlier = before.get("adapters", {}) if others else {}
        return {part: before[part] for part in [*others, TRAINED_ON] if part in before and others}

    def _say_what_was_trained_on(self) -> None:
        names = {f"{clip.parent.name}/{clip.stem}" for question in self._all_questions() for clip in question.audio}
        names |= {f"{held_out.REAL}/{clip.stem}" for question in self.asked.sakura for clip in question.audio}
        for name, folders in self.options.trained.items():
            runs = trained.trained_on(folders, names)
            known = {"runs": runs, "licences": trained.licences(Path(self.options.corpus), runs)}
            self.report.setdefault(TRAINED_ON, {})[name] = known

    @functools.cached_property
    def dtype(self) -> str:
        """Of the sums."""
        return np.dtype(self.backbone.tongue.audio_lm.dtype).name

    @functools.cached_property
    def backbone(self) -> Backbone:
        """The language model that was never given an adapter."""
        return open_reader(self.options.model, self.options.dtype or "")

    def make(self) -> dict[str, Any]:
        """Everything: answers, numbers, files."""
        self._read()
        for name, folder in self.options.adapter.items():
            start = time.monotonic()
            self._hear(name, folder)
            say(f"{name} is done ({(time.monotonic() - start) / 60:.1f} min)")
        self.report["rows"] = list(self.options.adapter)
        self.report["settings"] = self._settings()
        (self.out / "table.json").write_text(json.dumps(self.report, indent=1, ensure_ascii=False) + "\n", "utf-8")
        show.write(self.report, self.out)
        return self.report

    def _read(self) -> None:
        """What the language model says that reads descriptions, or nothing but text."""
        context, inference = self.backbone.prompts.context, self.backbone.prompts.inference
        reader = Reader(self.backbone, context)
        user = perception.READING.user
        asked, report = self.asked, self.report
        if asked.perception:
            texts = self._answers(READER, "perception", reader, perception.MAX_NEW_TOKENS, user)
            report["perception"][READER] = perception.score(asked.perception, texts)
            report["perception"]["chance"] = perception.chance(asked.perception)
        if asked.sakura:
            report["sakura"]["chance"] = hops.chance(asked.sakura)
        if asked.formats:
            texts = self._answers(READER, "formats", reader, formats.MAX_NEW_TOKENS, user)
            self.read_marks = formats.marks(asked.formats, texts)
            report["formats"][READER] = formats.followed_in_text(asked.formats, self.read_marks)
        if asked.divergence:
            self._answers(READER, "divergence", reader, divergence.ANSWER_TOKENS, user)
            rows = self._rows(READER, "divergence")
            self.said = {row["id"]: row["token_ids"] for row in rows if row.get("token_ids")}
        if asked.text:
            alone = Reader(self.backbone, lambda messages: inference(messages, []))
            self._answers(READER, "text", alone, text_only.MAX_NEW_TOKENS)

    def _hear(self, name: str, folder: str) -> None:
        """All parts of one adapter."""
        say(f"{name}: loading {folder}")
        model = generation.load(self.options.model, adapter=folder, dtype=self.options.dtype or "")
        fingerprint = self.report.setdefault("adapters", {})[name] = _fingerprint(model)
        if self.earlier.get(name, fingerprint) != fingerprint:
            raise ValueError(f"{self.out / 'table.json'} is of another adapter {name}: choose another --out")
        hearing = self._hearing(model)
        alone, kept = zeroed(model), self._zeroed_name(model, name)
        asked, report = self.asked, self.report
        told = {} if hearing.transcripts is None else {kept: Hearer(alone, hearing.transcripts)}
        told[f"{kept}, no transcripts"] = Hearer(alone, None)
        for who, answerer in {name: hearing, **told}.items():
            for part, module in {"perception": perception, "sakura": hops}.items():
                if getattr(asked, part):
                    tested = model if who == name or _has_lora(model) else None
                    texts = self._answers(who, part, answerer, module.MAX_NEW_TOKENS, model=tested)
                    report[part][who] = module.score(getattr(asked, part), texts)
        if asked.perception:
            _say_what_is_clear(report["perception"][name], report["perception"]["chance"])
        if asked.formats:
            questions = formats.counted(asked.formats, report["formats"][READER])
            texts = self._answers(name, "formats", hearing, formats.MAX_NEW_TOKENS, model=model, questions=questions)
            marks = formats.marks(questions, texts)
            report["formats"][name] = formats.score(questions, self.read_marks, marks)
        if asked.divergence:
            self._compare(name, model, hearing.transcripts)
        if asked.text:
            self._answers(name, "text", hearing, text_only.MAX_NEW_TOKENS, model=model)
            report["text"][name] = text_only.score(self._rows(READER, "text"), self._rows(name, "text"))

    def _hearing(self, model: Model) -> Hearer:
        """The model with an ear that keeps what it heard, and the transcripts that it is given."""
        transcripts = self._transcripts(model)
        return Hearer(Model(KeepingEar(model.ear), model.tongue, model.prompts, model.tokenizer), transcripts)

    def _transcripts(self, model: Model) -> Mapping[str, str] | None:
        """Of each clip by path: Whisper's, or the corpus's own where it has the clip; None for none."""
        if self.options.transcripts == "none":
            return None
        own = {str(clip.path): clip.transcript for clip in self.clips} if self.options.transcripts == "given" else {}
        asked = [str(clip) for question in self._all_questions() for clip in question.audio]
        file = self.out / f"transcripts-{model.ear.seconds}s.jsonl"
        return own | transcribe(model, [clip for clip in asked if clip not in own], file, say)

    def _all_questions(self) -> Iterator[Question]:
        for part in self.options.parts:
            yield from getattr(self.asked, part)

    def _zeroed_name(self, model: Model, name: str) -> str:
        """Without LoRA all adapters with as many soft tokens are the same when these are zeroed."""
        size = model.ear.audio_lm.adapter.prompt_size
        return f"{name} zeroed" if _has_lora(model) else f"zeroed, {size} soft tokens"

    def _answers(
        self,
        who: str,
        part: str,
        answerer: Answerer,
        max_new_tokens: int,
        user: str | None = None,
        *,
        model: Model | None = None,
        questions: Sequence[Question] | None = None,
    ) -> dict[str, str]:
        """The answers' texts by id, asked for where they are not there."""
        questions = getattr(self.asked, part) if questions is None else questions
        predict(
            sorted(questions, key=functools.partial(_length, answerer)),
            answerer,
            self._folder(who, part) / "answers.jsonl",
            max_new_tokens=max_new_tokens,
            model_name=self._about(who, model),
            user=user,
            batch_size=self.options.batch_size,
            say=lambda line: say(f"{who}, {part}: {line}"),
        )
        return {row["id"]: row["text"] for row in self._rows(who, part) if "text" in row}

    def _about(self, who: str, model: Model | None) -> str:
        """Tells whose answers these are; float32 is not named."""
        about = f"{who}; {self.options.model}; {_fingerprint(model)}; transcripts {self.options.transcripts}"
        return about + f"; {self.dtype}" * (self.dtype != "float32")

    def _rows(self, who: str, part: str) -> Sequence[Mapping[str, Any]]:
        return newest(whole_lines(self._folder(who, part) / "answers.jsonl"))

    def _folder(self, who: str, part: str) -> Path:
        folder = self.out / who / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _compare(self, name: str, model: Model, transcripts: Mapping[str, str] | None) -> None:
        """How far the model strays; and the one told nothing, once."""
        report, reader = self.report["divergence"], self.backbone.tongue
        questions = [question for question in self.asked.divergence if question.id in self.said]
        about = self._about(NOTHING, None)
        file = self._folder(NOTHING, "divergence") / "compared.jsonl"
        nothing = divergence.measure_nothing(questions, self.said, model, reader, file, _saying(NOTHING), about)
        report[NOTHING] = divergence.score(questions, nothing)
        heard_by = f"{_fingerprint(model)}-transcripts-{self.options.transcripts}"
        file = self._folder(name, "divergence") / f"compared-{heard_by}.jsonl"
        about = self._about(name, model)
        rows = divergence.measure(questions, self.said, model, reader, transcripts, file, _saying(name), about)
        report[name] = divergence.score(questions, rows, nothing)


def say(line: str) -> None:
    """How the work goes."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def _saying(name: str):
    return lambda line: say(f"{name}, divergence: {line}")


def _length(answerer: Answerer, question: Question) -> tuple[int, str]:
    """Questions of about one length share a batch, and a clip's follow each other."""
    texts = getattr(answerer, "transcripts", None)
    if isinstance(answerer, Reader):
        return len(question.fields.get("description", "")), question.id
    return sum(len(texts[str(clip)]) for clip in question.audio) // 16 if texts else 0, str(question.audio)


def _fingerprint(model: Model | None) -> str:
    """Tells one adapter from another, so that nobody else's answers are gone on with."""
    if model is None:
        return "no adapter"
    return tree.digest((model.ear.adapter, model.tongue.model if _has_lora(model) else None))


def _has_lora(model: Model) -> bool:
    """Whether the adapter changes the language model too."""
    return model.ear.audio_lm.adapter.lora_rank > 0


def _say_what_is_clear(figures: dict[str, Figure], chance: Mapping[str, Mapping[str, float]]) -> None:
    """Marks attributes that are clear of chance by their interval."""
    for name, figure in figures.items():
        figure["clear of chance"] = figure["low"] > max(chance[name]["even"], chance[name]["most_frequent"])


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", required=True, help="the folder that make.py wrote")
    add("--model", required=True, help="the folder that `desta-jax convert` wrote")
    add("--adapter", required=True, nargs="+", metavar="NAME=FOLDER", help="exports or work directories, by name")
    add("--out", required=True, help="the folder to write")
    add("--trained", nargs="+", default=[], metavar="NAME=RUN,RUN", help="work directories an adapter comes from")
    add("--sakura", help="a checkout of ckyang1124/SAKURA")
    add("--clips", type=int, default=20, help="made clips a value that perception is asked about (20)")
    add("--real_clips", type=int, default=60, help="real recordings a value that it is asked about (60)")
    add("--format_clips", type=int, default=24, help="clips that formats are counted on (24)")
    add("--divergence_clips", type=int, default=16, help="clips of a kind whose answers are compared (16)")
    add("--parts", default=",".join(PARTS), help=f"some of {','.join(PARTS)}; the others stay as table.json has them")
    add("--transcripts", default="auto", choices=TRANSCRIPTS, help="auto: Whisper's; given: the corpus's; none")
    add("--batch_size", type=int, default=32, help="questions answered together (32)")
    add("--dtype", choices=("float32", "bfloat16"), help="by default float32 on a CPU, else bfloat16")
    options = parser.parse_args(arguments)
    named = {part.strip() for part in options.parts.split(",")}
    if named - set(PARTS):
        parser.error(f"--parts: name some of {','.join(PARTS)}, not {options.parts!r}")
    options.parts = [part for part in PARTS if part in named]
    options.adapter = _named(parser, "--adapter", options.adapter)
    trained_on = _named(parser, "--trained", options.trained)
    if strange := trained_on.keys() - options.adapter.keys():
        parser.error(f"--trained: there is no adapter {', '.join(sorted(strange))}")
    options.trained = {name: runs.split(",") for name, runs in trained_on.items()}
    return options


def _named(parser: argparse.ArgumentParser, flag: str, entries: Sequence[str]) -> dict[str, str]:
    pairs = [entry.partition("=") for entry in entries]
    if not all(name and folder for name, _, folder in pairs) or len({pair[0] for pair in pairs}) < len(pairs):
        parser.error(f"{flag}: write NAME=FOLDER, each with a name of its own")
    return {name: folder for name, _, folder in pairs}


def main(arguments: Sequence[str] | None = None) -> None:
    options = read_options(arguments)
    Path(options.out).mkdir(parents=True, exist_ok=True)
    try:
        Table(options).make()
    except (ValueError, FileNotFoundError) as error:
        raise SystemExit(f"table: {error}") from error
    print((Path(options.out) / "table.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
