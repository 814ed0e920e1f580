"""What a run made: counts, lengths, drops and perplexity, as JSON, as plots and as the dataset's card."""

from __future__ import annotations

import collections
import importlib.util
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from desta_jax.construct.metadata import Problem
from desta_jax.construct.quality import count_drops
from desta_jax.construct.write import Shard, read_lines
from desta_jax.files import write_whole

EXAMPLES = 12  # rows shown in the card
_GREEN, _RED, _BLUE = "#55a868", "#c44e52", "#4c72b0"


def check_installed() -> None:
    """Raises ValueError where rows could be written, but not their report."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError('the report needs matplotlib: pip install -e ".[construct]"')


def is_finished(out: epath.Path, shards: Sequence[Shard]) -> bool:
    """Whether every process's shards are there."""
    return all((out / f"rows-{shard.name}").exists() for shard in shards)


def summarise(out: epath.Path, problems: Sequence[Problem], clips: int) -> dict[str, Any]:
    """The numbers of a finished run."""
    outcomes = list(read_lines(sorted(out.glob("outcomes/*.jsonl"))))
    kept = [outcome for outcome in outcomes if outcome["reason"] is None]
    dropped = [outcome["reason"] for outcome in outcomes if outcome["reason"] is not None]
    categories = collections.Counter(_main(outcome) for outcome in outcomes)
    kept_by_category = collections.Counter(_main(outcome) for outcome in kept)
    datasets = collections.Counter(row["dataset"] for row in read_lines(sorted(out.glob("rows-*.jsonl"))))
    return {
        "clips": clips,
        "requests": len(outcomes),
        "rows": len(kept),
        "dropped": count_drops(dropped),
        "by_source": dict(datasets.most_common()),
        "by_category": {
            name: {"requests": count, "rows": kept_by_category[name]} for name, count in categories.most_common()
        },
        "response_words": _spread([outcome["words"] for outcome in kept]),
        "metadata_problems": dict(collections.Counter(problem.reason for problem in problems).most_common()),
    }


def write_report(out: epath.Path, summary: Mapping[str, Any], plan: Mapping[str, Any]) -> None:
    """OUT/plots/*.png, OUT/README.md, the dataset's card, and OUT/report.json, which says that all is done."""
    _plot(out, summary)
    write_whole(out / "README.md", card(out, summary, plan))
    write_whole(out / "report.json", json.dumps(summary, indent=1, ensure_ascii=False) + "\n")


def card(out: epath.Path, summary: Mapping[str, Any], plan: Mapping[str, Any]) -> str:
    """The dataset card, with the front matter that the Hugging Face Hub reads."""
    rows = read_lines(sorted(out.glob("rows-*.jsonl")))
    shown = [row for _, row in zip(range(EXAMPLES * 50), rows)]
    shown = shown[:: max(1, len(shown) // EXAMPLES)][:EXAMPLES]
    table = "\n".join(
        f"| {name} | {counts['requests']} | {counts['rows']} |" for name, counts in summary["by_category"].items()
    )
    drops = "\n".join(f"| {name} | {count} |" for name, count in summary["dropped"].items())
    perplexity = summary.get("perplexity")
    match = (
        f"Perplexity of the responses under {perplexity['model']}: geometric mean {perplexity['geometric_mean']}, "
        f"median {perplexity['median']}, over {perplexity['rows']} rows.\n"
        if perplexity
        else ""
    )
    examples = "\n\n".join(
        f"> {_quoted(row['seed_description'])}\n>\n> **{_quoted(row['prompt'])}**\n>\n> {_quoted(row['response'])}"
        for row in shown
    )
    return f"""---
task_categories: [audio-text-to-text]
tags: [audio-question-answering, self-generated]
configs: [{{config_name: default, data_files: "rows-*.jsonl"}}]
---

# {plan["source"]}: {summary["rows"]} self-generated rows

What is known of {summary["clips"]} clips was written as a line of text each; {plan["generator"]} read that line in
place of the audio and wrote the responses (temperature {plan["temperature"]}, top-p {plan["top_p"]}, at most
{plan["max_new_tokens"]} new tokens, seed {plan["seed"]}). The audio itself is not here: `id` and `audios` hold paths
under an audio root.

Fields: `id`, `dataset`, `seed_description`, `prompt`, `messages` (as a model is trained on, with
`<start_audio><|AUDIO|><end_audio>` where a clip is heard), `response`.

| category | requests | rows |
|---|---|---|
{table}

| dropped by | requests |
|---|---|
{drops}

Words in a response: median {summary["response_words"]["median"]}, 5 % below
{summary["response_words"]["percentile_5"]}, 5 % above {summary["response_words"]["percentile_95"]}.
{match}
## Examples

{examples}
"""


def _quoted(text: str) -> str:
    return text.replace("\n", "\n> ")


def _main(outcome: Mapping[str, Any]) -> str:
    return outcome["category"].partition(":")[0]


def _spread(numbers: Sequence[int]) -> dict[str, float]:
    if not numbers:
        return {"mean": 0.0, "percentile_5": 0.0, "median": 0.0, "percentile_95": 0.0}
    low, middle, high = np.quantile(numbers, [0.05, 0.5, 0.95])
    values = {"mean": np.mean(numbers), "percentile_5": low, "median": middle, "percentile_95": high}
    return {name: round(float(value), 1) for name, value in values.items()}


def _plot(out: epath.Path, summary: Mapping[str, Any]) -> None:
    """Rows by category with what was dropped, drops by filter, lengths of the responses."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 120})
    categories = summary["by_category"]
    rows = [counts["rows"] for counts in categories.values()]
    lost = [counts["requests"] - counts["rows"] for counts in categories.values()]

    figure, axes = pyplot.subplots(figsize=(7, 0.35 * len(categories) + 1.2), layout="constrained")
    axes.barh(list(categories), rows, color=_GREEN, label="rows")
    axes.barh(list(categories), lost, left=rows, color=_RED, label="dropped")
    axes.invert_yaxis()
    axes.set(xlabel="requests", title="By category of instruction")
    axes.legend()
    _save(figure, out / "plots" / "categories.png")

    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    bars = axes.bar(list(summary["dropped"]), list(summary["dropped"].values()), color=_RED)
    axes.bar_label(bars)
    axes.set(ylabel="requests", title="Dropped, by filter")
    _save(figure, out / "plots" / "dropped.png")

    words = [outcome["words"] for outcome in read_lines(sorted(out.glob("outcomes/*.jsonl"))) if not outcome["reason"]]
    figure, axes = pyplot.subplots(figsize=(7, 3), layout="constrained")
    axes.hist(words, bins=40, color=_BLUE)
    axes.set(xlabel="words in a response", ylabel="rows", title="Length")
    _save(figure, out / "plots" / "words.png")
    pyplot.close("all")


def _save(figure: Any, path: epath.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        figure.savefig(file, format="png")
