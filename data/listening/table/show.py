"""The table as Markdown and as a picture."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import Figure, of_seeds, text

Report = Mapping[str, Any]
Cells = dict[str, dict[str, Figure]]  # rows, then columns

READER, CHANCE = "reads the description", "chance"
NOT_COUNTED = " (not counted)"
_COLOURS = ("#4c72b0", "#dd8452", "#55a868", "#c44e52", "#8172b3", "#937860", "#8c8c8c")


def write(report: Report, out: Path) -> None:
    """OUT/table.md and OUT/table.png."""
    tables = tables_of(report)
    (out / "table.md").write_text(_markdown(report, tables), encoding="utf-8")
    _plot(report, tables, out / "table.png")


def tables_of(report: Report) -> dict[str, Cells]:
    """A table for each part by its title; runs of a kind are one column."""
    makers = {
        "perception": _perception,
        "sakura": _sakura,
        "formats": _formats,
        "divergence": _divergence,
        "text": _text,
    }
    tables: dict[str, Cells] = {}
    for part, make in makers.items():
        if report.get(part):
            tables |= make(report)
    return tables


def columns(report: Report, part: str) -> dict[str, list[str]]:
    """Columns of a part, and the rows of the report that each is made of."""
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name in report["rows"]:
        groups[name.split("/")[0]].append(name)
    others = [name for name in report[part] if name not in report["rows"] and name != CHANCE]
    return {**groups, **{name: [name] for name in others}}


def _join(report: Report, part: str, pick) -> dict[str, Figure]:
    """The figure that `pick` finds for each column's rows."""
    cells = {}
    for column, names in columns(report, part).items():
        found = [pick(report[part][name]) for name in names if name in report[part]]
        found = [figure for figure in found if figure is not None]
        if found:
            cells[column] = of_seeds(found)
    return cells


def _perception(report: Report) -> dict[str, Cells]:
    cells: Cells = {}
    for name, chance in report["perception"]["chance"].items():
        cells[f"{name} ({chance['values']} values, {chance['clips']} clips)"] = {
            CHANCE: _plain(max(chance["even"], chance["most_frequent"]), chance["clips"]),
            **_join(report, "perception", lambda scores, name=name: scores.get(name)),
        }
    return {"Perception: percent of answers that name the true value": cells}


def _sakura(report: Report) -> dict[str, Cells]:
    cells: Cells = {}
    first = report["sakura"][report["rows"][0]]
    for hop, tracks in first.items():
        for track, figure in tracks.items():
            chance = report["sakura"][CHANCE].get(hop, {}).get(track)
            known = {} if chance is None else {CHANCE: _plain(chance, figure["count"])}
            joined = _join(report, "sakura", lambda scores, hop=hop, track=track: scores[hop].get(track))
            cells[f"{hop}, {track}{_count(figure, known)}"] = known | joined
    return {"SAKURA, test clips: percent of answers that name the right option": cells}


def _count(figure: Figure, asked: Mapping[str, Figure]) -> str:
    """How many were asked; of `multi given single` each model has its own number."""
    return f" ({figure['count']})" if asked else ""


def _formats(report: Report) -> dict[str, Cells]:
    rows = [name for name in report["rows"] if name in report["formats"]]
    cells: Cells = {}
    of_text, followed = report["formats"][rows[0]]["of text"], report["formats"][rows[0]]["followed"]
    titles = {
        "of text": f"in percent of what is followed in text ({of_text['count']} clips)",
        "followed": f"followed ({followed['count']} clips)",
    }
    for key, title in titles.items():
        cells[title] = _join(report, "formats", lambda scores, key=key: scores.get(key))
    cells[titles["followed"]][READER] = report["formats"][rows[0]]["followed in text"]
    for name, figure in report["formats"][READER].items():
        joined = _join(report, "formats", lambda scores, name=name: (scores.get("by_format") or {}).get(name))
        cells[f"{name} ({figure['count']}){'' if figure['counted'] else NOT_COUNTED}"] = joined | {READER: figure}
    return {"Formats: percent of answers that have the form asked for": cells}


def _divergence(report: Report) -> dict[str, Cells]:
    names = {name: scores["nats"]["count"] for name, scores in report["divergence"][report["rows"][0]].items()}
    return {
        title: {
            f"{name} ({count} clips)": _join(report, "divergence", lambda s, of=name, key=key: s.get(of, {}).get(key))
            for name, count in names.items()
        }
        for key, title in {
            "nats": "Divergence from what is said to the description: nats a token",
            "same token": "Likeliest next token the same: percent",
        }.items()
    }


def _text(report: Report) -> dict[str, Cells]:
    cells = _join(report, "text", _same)
    row = {f"all ({next(iter(cells.values()))['count']})": cells}
    return {"Text-only answers identical to those without the adapter: percent": row}


def _same(figure: Figure) -> Figure:
    return figure


def _plain(value: float, count: int) -> Figure:
    return {"value": value, "count": count, "low": None, "high": None}


def _markdown(report: Report, tables: Mapping[str, Cells]) -> str:
    settings = report["settings"]
    lines = ["# What it hears, and what it keeps", ""]
    lines += [f"{name}: {value}.  " for name, value in settings.items()] + [""]
    lines += _trained_on(report)
    lines += ["In brackets 95 % intervals: (of one run), or [from lowest to highest of several seeds].", ""]
    for title, cells in tables.items():
        names = list(dict.fromkeys(name for row in cells.values() for name in row))
        decimals = 2 if "nats" in title else 0
        lines += [f"## {title}", "", "| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        lines += [_line(name, row, names, decimals) for name, row in cells.items()]
        lines.append("")
    return "\n".join(lines)


def _trained_on(report: Report) -> list[str]:
    """A line a run."""
    lines = []
    for name, known in report.get("trained on", {}).items():
        lines += [f"{name} was trained on, run by run:", ""]
        for run in known["runs"]:
            heard = [
                f"{of['rows']} rows about {of['clips']} clips of {source} ({known['licences'][source]})"
                for source, of in run["sources"].items()
            ]
            steps = f"{run['steps']} steps of {run['batch size']}, seed {run['seed']}"
            lines.append(f"- {run['run']}: {steps}; {', '.join(heard)}")
        lines.append("")
    return lines


def _line(name: str, row: Mapping[str, Figure], names: Sequence[str], decimals: int) -> str:
    shown = [
        f"{row[CHANCE]['value']:.0f}" if column == CHANCE and CHANCE in row else text(row.get(column), decimals)
        for column in names
    ]
    return f"| {name} | " + " | ".join(shown) + " |"


def _plot(report: Report, tables: Mapping[str, Cells], path: Path) -> None:
    """A panel a table: a point and its interval for each column."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 120})
    tables = {title: cells for title, cells in ((title, _drawn(cells)) for title, cells in tables.items()) if cells}
    sizes = [max(2, len(cells)) for cells in tables.values()]
    figure, axes = pyplot.subplots(
        len(tables),
        1,
        figsize=(9, 0.42 * sum(sizes) + 1.1 * len(tables)),
        layout="constrained",
        squeeze=False,
        height_ratios=sizes,
    )
    for panel, (title, cells) in zip(axes[:, 0], tables.items()):
        _panel(panel, title, cells)
    figure.savefig(path, format="png")
    pyplot.close(figure)


def _drawn(cells: Cells) -> Cells:
    """What a picture has room for: no format that is not counted, no single instruction."""
    return {name: row for name, row in cells.items() if not name.endswith(NOT_COUNTED) and "instruction: " not in name}


def _panel(panel, title: str, cells: Cells) -> None:
    names = list(dict.fromkeys(name for row in cells.values() for name in row))
    drawn = [name for name in names if name != CHANCE]
    for at, row in enumerate(cells.values()):
        if CHANCE in row:
            panel.plot([row[CHANCE]["value"]] * 2, [at - 0.4, at + 0.4], color="black", lw=1)
    for number, name in enumerate(drawn):
        places = [at for at, row in enumerate(cells.values()) if row.get(name, {}).get("value") is not None]
        known = [list(cells.values())[at][name] for at in places]
        values = [figure["value"] for figure in known]
        ends = [[_distance(figure, end) for figure in known] for end in ("low", "high")]
        shift = 0.6 * (number / max(len(drawn) - 1, 1) - 0.5)
        colour = _COLOURS[number % len(_COLOURS)]
        panel.errorbar(values, [at + shift for at in places], xerr=ends, fmt="o", ms=4, lw=1, color=colour, label=name)
    panel.set_yticks(range(len(cells)), list(cells), fontsize=8)
    panel.set_ylim(len(cells) - 0.5, -0.5)
    panel.set_title(title, fontsize=9, loc="left")
    panel.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _distance(figure: Figure, end: str) -> float:
    """From the value to an end of its interval, where it is known."""
    return 0.0 if figure[end] is None else abs(figure["value"] - figure[end])
