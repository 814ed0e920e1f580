"""What a model learns to hear first: one attribute at a time, of real recordings, without their words.

A question about one value, answered by its name, says what there is to hear in a few tokens; and a clip whose words
stand beside it says its language by them, so these have none.
A value with more than twice the others' mean is cut to it.
"""

import collections

ATTRIBUTES = ("language", "gender", "emotion")


def lessons(rows: list[dict]) -> dict[str, list[dict]]:
    """For each attribute, the clips to ask about, of all real recordings; the caption alone tells what else is known.

    A value that many more clips have than another has (English) is cut to the mean of the other values.
    """
    found = {}
    for attribute in ATTRIBUTES:
        known = [row for row in rows if row.get(attribute)]
        if attribute == "language":  # an acted voice says more of its emotion than of its language
            known = [row for row in known if not row.get("emotion")]
        found[attribute] = [_alone(row, attribute) for row in even(known, attribute)]
    return found


def even(rows: list[dict], attribute: str) -> list[dict]:
    """The rows in their order; of a value with more than twice the others' mean, the first so many as that mean."""
    counts = collections.Counter(row[attribute] for row in rows)
    most = {}
    for value, count in counts.items():
        mean = (counts.total() - count) / (len(counts) - 1) if len(counts) > 1 else count
        most[value] = count if count <= 2 * mean else mean
    kept, taken = [], collections.Counter()
    for row in rows:
        taken[row[attribute]] += 1
        if taken[row[attribute]] <= most[row[attribute]]:
            kept.append(row)
    return kept


def _alone(row: dict, attribute: str) -> dict:
    others = {"text", "speaker", *ATTRIBUTES} - {attribute}
    return {key: value for key, value in row.items() if key not in others} | {"said": ""}
