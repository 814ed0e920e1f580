"""How a model does while it is trained: answers to samples that were held out, and scores on benchmarks."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from desta_jax.evaluation.benchmark import check_installed
from desta_jax.evaluation.run import BENCHMARKS, evaluate_in_training
from desta_jax.files import is_remote
from desta_jax.generation.load import assemble, restore_transcriber
from desta_jax.generation.model import Model
from desta_jax.generation.transcribe import Transcriber
from desta_jax.records.read import RecordSource
from desta_jax.records.schema import Sample, decode
from desta_jax.training.run import Run
from desta_jax.tree import Tree, digest

SHOWN_TOKENS = 64  # of an answer that is shown


class Examiner:
    """Asks a run's model: over the run's own frozen weights and, while it is asked, a copy of the language model's."""

    def __init__(self, config: ConfigDict, workdir: str, say: Callable[[str], None] = lambda line: None):
        """
        Raises:
            ValueError, FileNotFoundError: evaluate.benchmarks names what is not there, or the run is on no local disk.
        """
        self._benchmarks = dict(entry.split("=", 1) for entry in config.evaluate.benchmarks)
        self._limit = config.evaluate.benchmark_questions or None
        self._out, self._say = Path(workdir) / "benchmarks", say
        self._transcriber: Transcriber | None = None
        if self._benchmarks and is_remote(workdir):
            raise ValueError("evaluate.benchmarks: answers are written beside the run, to a local disk; leave it empty")
        for name, folder in self._benchmarks.items():
            if name not in BENCHMARKS:
                raise ValueError(f"evaluate.benchmarks: no benchmark {name!r}; there are {', '.join(BENCHMARKS)}")
            if not Path(folder).exists():
                raise FileNotFoundError(f"evaluate.benchmarks: there is no {folder}")
        check_installed(BENCHMARKS[name] for name in self._benchmarks)

    def answers(self, run: Run, frozen: Tree, adapter: Tree) -> list[dict[str, str]]:
        """What the model makes of some held-out samples, evenly spread, with their own transcripts: rows of `prompt`,
        `expected`, `answer`."""
        samples = held_out(tuple(run.config.data.validation), run.config.evaluate.samples)
        given = self._model(run, frozen, adapter, transcriber=None).generate(
            [_with_sound(sample) for sample in samples],
            max_new_tokens=SHOWN_TOKENS,
            temperature=0,
            transcripts="given",
        )
        return [
            {
                "prompt": sample.messages[-1]["content"],
                "expected": sample.response,
                "answer": answer.text if answer.error is None else f"(none: {answer.error})",
            }
            for sample, answer in zip(samples, given, strict=True)
        ]

    def scores(self, run: Run, frozen: Tree, adapter: Tree, step: int) -> dict[str, float]:
        """Figures on the benchmarks, without a judge; predictions and tables go to WORKDIR/benchmarks/step-N."""
        if self._transcriber is None:
            self._transcriber = restore_transcriber(run.folder, run.model.whisper, run.model.dtype, run.mesh)
        model = self._model(run, frozen, adapter, self._transcriber)
        return evaluate_in_training(
            self._benchmarks, self._out, model, step, adapter=digest(adapter), limit=self._limit, say=self._say
        )

    @staticmethod
    def _model(run: Run, frozen: Tree, adapter: Tree, transcriber: Transcriber | None) -> Model:
        seconds = run.config.data.audio_seconds
        return assemble(run.folder, run.model, frozen, adapter, transcriber, run.prompts, run.mesh, seconds)


@functools.lru_cache(maxsize=1)
def held_out(folders: tuple[str, ...], count: int) -> list[Sample]:
    """So many samples of some records, evenly spread over each folder's."""
    samples = []
    for number, folder in enumerate(folders):
        source = RecordSource(folder)
        share = count // len(folders) + (number < count % len(folders))
        places = np.linspace(0, len(source), share, endpoint=False).astype(int)
        for place in dict.fromkeys(places):
            try:
                samples.append(decode(source[int(place)]))
            except (OSError, ValueError) as error:  # the input leaves such samples out too
                logging.warning("not shown: %s", error)
    return samples


def _with_sound(sample: Sample) -> list[dict[str, Any]]:
    """The sample's messages with its sound itself in place of paths."""
    clips = iter(sample.audio)
    return [
        message | {"audios": [clip | {"audio": next(clips)} for clip in message.get("audios") or ()]}
        for message in sample.messages
    ]
