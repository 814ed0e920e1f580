"""What is asked about which clips, and the two forms of it: as the model reads it now, as it hears it in training."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence
from typing import Any

from desta_jax.construct.clip import Clip
from desta_jax.construct.instructions import AUDIO, Instruction, Pool, Values
from desta_jax.inputs.prompt import MARKERS
from desta_jax.records.rows import AUDIO_LOCATOR, NO_SPEECH

LAYOUTS = (  # where an instruction that does not say it has the audio, and how often
    (f"{AUDIO}\n\n{{instruction}}", 4),
    (f"{AUDIO}\n{{instruction}}", 2),
    (f"{AUDIO} {{instruction}}", 3),
    (f"{{instruction}}\n{AUDIO}", 2),
    (f"{{instruction}} {AUDIO}", 1),
)
_HEARD = AUDIO_LOCATOR.join(MARKERS)
_ATTEMPTS = 8  # at an instruction that the clip was not asked yet
_THREE = 0.25  # of the rows with several clips, those with three


@dataclasses.dataclass(frozen=True)
class Request:
    """A row of the dataset without its response."""

    clips: tuple[Clip, ...]
    instruction: Instruction
    layout: str
    transcribed: bool = True
    """Whether transcripts stand beside the clips; without them all must be heard."""

    @property
    def id(self) -> str:
        """The clip's path, as in the public dataset: several rows may have it."""
        return self.clips[0].audio

    @property
    def dataset(self) -> str:
        return self.clips[0].dataset

    @property
    def seed_description(self) -> str:
        return "\n".join(clip.describe() for clip in self.clips)

    @property
    def prompt(self) -> str:
        return self.instruction.text

    def messages(self) -> list[dict[str, Any]]:
        """As they are trained on: `<start_audio><|AUDIO|><end_audio>` where a clip is heard."""
        user = {"role": "user", "content": self.content([_HEARD] * len(self.clips))}
        user["audios"] = [
            {"audio": clip.audio, "text": clip.transcript if self.transcribed else NO_SPEECH} for clip in self.clips
        ]
        return [{"role": "system", "content": self.instruction.system}, user]

    def reading(self) -> list[dict[str, Any]]:
        """The same messages with each clip's description between the markers."""
        described = [clip.describe().join(MARKERS) for clip in self.clips]
        return [
            {"role": "system", "content": self.instruction.system},
            {"role": "user", "content": self.content(described)},
        ]

    def content(self, clips: Sequence[str]) -> str:
        """The user's message with these texts in the clips' places."""
        text = self.prompt if AUDIO in self.prompt else self.layout.replace("{instruction}", self.prompt)
        places = text.split(AUDIO)
        if len(places) == 2:  # one place for all clips
            return places[0] + "\n".join(clips) + places[1]
        return "".join(part for pair in zip(places, [*clips, ""]) for part in pair)

    def row(self, response: str) -> dict[str, Any]:
        """The finished row, with the public dataset's fields."""
        return {
            "id": self.id,
            "dataset": self.dataset,
            "seed_description": self.seed_description,
            "prompt": self.prompt,
            "messages": self.messages(),
            "response": response,
        }


def plan_requests(
    clips: Sequence[Clip],
    pool: Pool,
    seed: int,
    rows_per_clip: int = 1,
    several: float = 0.0,
    transcripts: float = 1.0,
) -> Iterator[Request]:
    """What is asked about a corpus: the same requests for the same clips, pool and seed.

    Args:
        clips: the corpus.
        pool: of instructions.
        seed: another one asks other things.
        rows_per_clip: requests about each clip, no two with the same instruction.
        several: share of the requests that are about two or three clips.
        transcripts: share of the requests whose clips have their transcripts beside them in training.
    """
    values = Values(clips)
    for clip in clips:
        asked: set[str] = set()
        for turn in range(rows_per_clip):
            key = f"{seed} {clip.audio} {turn}"
            request = _draw(clip, clips, pool, values, key, several, asked)
            if request is not None:
                asked.add(request.prompt)
                yield dataclasses.replace(request, transcribed=random.Random(f"{key} words").random() < transcripts)


def _draw(
    clip: Clip, clips: Sequence[Clip], pool: Pool, values: Values, key: str, several: float, asked: set[str]
) -> Request | None:
    """A request that was not made yet; None if the pool has no other for this clip."""
    rng = random.Random(key)
    layout = _pick_layout(rng)
    chosen = (clip, *_partners(clip, clips, rng)) if rng.random() < several else (clip,)
    for attempt in range(_ATTEMPTS):
        for about in [chosen] if len(chosen) == 1 else [chosen, (clip,)]:
            instruction = pool.draw(about, values, f"{key} {attempt}")
            if instruction is not None and instruction.text not in asked:
                return Request(about, instruction, layout)
    return None


def _partners(clip: Clip, clips: Sequence[Clip], rng: random.Random) -> list[Clip]:
    count = 2 if rng.random() < _THREE else 1
    drawn = [clips[int(rng.random() * len(clips))] for _ in range(count)]
    return [other for other in drawn if other is not clip]


def _pick_layout(rng: random.Random) -> str:
    at = rng.random() * sum(weight for _, weight in LAYOUTS)
    for layout, weight in LAYOUTS:
        at -= weight
        if at < 0:
            return layout
    return LAYOUTS[0][0]
