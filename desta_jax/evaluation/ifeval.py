"""IFEval's verifiable instructions: one rule an instruction, in the original's form and in Speech-IFEval's.

Rules follow google-research/instruction_following_eval; where Speech-IFEval changed one, both forms stand side by side.
A rule takes the response and the row's arguments and says whether the instruction was followed.
"""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from desta_jax.evaluation import sentences

Rule = Callable[..., bool]

_RELATIONS = {"less than": operator.lt, "at least": operator.ge}


def follows(
    instructions: Sequence[str], arguments: Sequence[Mapping], response: str, rules: Mapping[str, Rule]
) -> list[bool]:
    """Which instructions the response follows to the letter ("strict"); an empty response follows none.

    Arguments that are null are left out, as the official evaluators do.

    Raises:
        ValueError: an instruction that `rules` lacks, or arguments that do not fit it.
    """
    return [_follows(name, given, [response], rules) for name, given in _pairs(instructions, arguments)]


def follows_loosely(
    instructions: Sequence[str], arguments: Sequence[Mapping], response: str, rules: Mapping[str, Rule]
) -> list[bool]:
    """As `follows`, where it is enough that one of eight readings does: without asterisks, first line, last line."""
    return [_follows(name, given, _readings(response), rules) for name, given in _pairs(instructions, arguments)]


def _pairs(instructions: Sequence[str], arguments: Sequence[Mapping]):
    if len(instructions) != len(arguments):
        raise ValueError(f"{len(instructions)} instructions but {len(arguments)} kwargs")
    return zip(instructions, arguments)


def _follows(name: str, given: Mapping, readings: Sequence[str], rules: Mapping[str, Rule]) -> bool:
    if name not in rules:
        raise ValueError(f"unknown instruction {name!r}; known are {', '.join(sorted(rules))}")
    arguments = {key: value for key, value in (given or {}).items() if value is not None}
    try:
        return any(reading.strip() and rules[name](reading, **arguments) for reading in readings)
    except TypeError as error:
        raise ValueError(f"instruction {name}: kwargs {arguments} do not fit: {error}") from error


def _readings(response: str) -> list[str]:
    lines = response.split("\n")
    cuts = [response] + ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return cuts + [cut.replace("*", "") for cut in cuts]


def _compare(count: int, relation: str, threshold: int) -> bool:
    if relation not in _RELATIONS:
        raise ValueError(f"relation {relation!r} is none of {', '.join(_RELATIONS)}")
    return _RELATIONS[relation](count, threshold)


def _language_is(response: str, language: str) -> bool:
    """langdetect with a fixed seed; a text whose language cannot be told counts as followed, as officially."""
    import langdetect

    langdetect.DetectorFactory.seed = 0
    try:
        return langdetect.detect(response) == language
    except langdetect.LangDetectException:
        return True


def _keywords(response: str, keywords: Sequence[str]) -> bool:
    return all(re.search(keyword, response, re.IGNORECASE) for keyword in keywords)


def _keyword_frequency(response: str, keyword: str, frequency: int, relation: str) -> bool:
    return _compare(len(re.findall(keyword.strip(), response, re.IGNORECASE)), relation, frequency)


def _forbidden_words(response: str, forbidden_words: Sequence[str]) -> bool:
    return not any(re.search(rf"\b{word}\b", response, re.IGNORECASE) for word in forbidden_words)


def _letter_frequency(response: str, letter: str, let_frequency: int, let_relation: str) -> bool:
    return _compare(response.lower().count(letter.strip().lower()), let_relation, let_frequency)


def _response_language(response: str, language: str) -> bool:
    return _language_is(response, language)


def _sentences(response: str, num_sentences: int, relation: str) -> bool:
    return _compare(sentences.count_sentences(response), relation, num_sentences)


def _words(response: str, num_words: int, relation: str) -> bool:
    return _compare(sentences.count_words(response), relation, num_words)


def _paragraphs(response: str, num_paragraphs: int) -> bool:
    return _whole_parts(re.split(r"\s?\*\*\*\s?", response)) == num_paragraphs


def _paragraphs_by_line(response: str, num_paragraphs: int) -> bool:
    return _whole_parts(re.split(r"\s*\*\*\*\s*|\n+", response.strip())) == num_paragraphs


def _whole_parts(parts: Sequence[str]) -> int | None:
    """Number of parts, an empty first and last not counted; None if one between them is empty."""
    if any(not part.strip() for part in parts[1:-1]):
        return None
    return sum(bool(part.strip()) for part in parts)


def _nth_paragraph(response: str, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    paragraphs = response.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if count != num_paragraphs or nth_paragraph > count or not paragraphs[nth_paragraph - 1].strip():
        return False
    word = paragraphs[nth_paragraph - 1].split()[0].lstrip("'").lstrip('"')
    return re.split("[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


def _placeholders(response: str, num_placeholders: int) -> bool:
    return len(re.findall(r"\[.*?\]", response)) >= num_placeholders


def _postscript(response: str, postscript_marker: str) -> bool:
    patterns = {"P.P.S": r"\s*p\.\s?p\.\s?s.*$", "P.S.": r"\s*p\.\s?s\..*$"}
    marker = postscript_marker.strip()
    pattern = patterns.get(marker, rf"\s*{marker.lower()}.*$")
    return bool(re.search(pattern, response.lower(), re.MULTILINE))


def _bullets(response: str, num_bullets: int) -> bool:
    return _count_lines(response, r"\*[^\*].*$", r"-.*$") == num_bullets


def _bullets_or_numbers(response: str, num_bullets: int) -> bool:
    return _count_lines(response.replace("\\n", "\n"), r"\*[^\*].*$", r"-.*$", r"•.*$", r"\d.*$") == num_bullets


def _count_lines(response: str, *starts: str) -> int:
    return sum(len(re.findall(rf"^\s*{start}", response, re.MULTILINE)) for start in starts)


def _constrained_response(response: str) -> bool:
    return any(answer in response for answer in ("My answer is yes.", "My answer is no.", "My answer is maybe."))


def _highlights(response: str, num_highlights: int) -> bool:
    single = [part.strip("*") for part in re.findall(r"\*[^\n\*]*\*", response)]
    double = [part[2:-2] for part in re.findall(r"\*\*[^\n\*]*\*\*", response)]
    return sum(bool(part.strip()) for part in single + double) >= num_highlights


def _sections(response: str, section_spliter: str, num_sections: int) -> bool:
    return len(re.split(rf"\s?{section_spliter.strip()}\s?\d+\s?", response)) - 1 >= num_sections


def _json(response: str) -> bool:
    text = response.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except ValueError:
        return False
    return True


def _title(response: str) -> bool:
    return any(title.lstrip("<").rstrip(">").strip() for title in re.findall(r"<<[^\n]+>>", response))


def _two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    if not all(parts[1:-1]):
        return False
    given = [part for part in parts if part]
    return len(given) == 2 and given[0] != given[1]


def _repeats(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _repeats_or_quotes(response: str, prompt_to_repeat: str) -> bool:
    return response.strip().lower().strip("\"'").startswith(prompt_to_repeat.strip().lower())


def _ends_with(response: str, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _quoted(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


def _capital_words(response: str, capital_frequency: int, capital_relation: str) -> bool:
    capitals = Counter(token.isupper() for token in sentences.word_tokens(response))[True]
    return _compare(capitals, capital_relation, capital_frequency)


def _english_capital(response: str) -> bool:
    return response.isupper() and _language_is(response, "en")


def _english_lowercase(response: str) -> bool:
    return response.islower() and _language_is(response, "en")


def _no_comma(response: str) -> bool:
    return "," not in response


IFEVAL: dict[str, Rule] = {
    "keywords:existence": _keywords,
    "keywords:frequency": _keyword_frequency,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:number_sentences": _sentences,
    "length_constraints:number_paragraphs": _paragraphs,
    "length_constraints:number_words": _words,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph,
    "detectable_content:number_placeholders": _placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:number_bullet_lists": _bullets,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:number_highlighted_sections": _highlights,
    "detectable_format:multiple_sections": _sections,
    "detectable_format:json_format": _json,
    "detectable_format:title": _title,
    "combination:two_responses": _two_responses,
    "combination:repeat_prompt": _repeats,
    "startend:end_checker": _ends_with,
    "startend:quotation": _quoted,
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "punctuation:no_comma": _no_comma,
}
"""The original rules, as VoiceBench uses them too."""

SPEECH_IFEVAL: dict[str, Rule] = IFEVAL | {
    "length_constraints:number_paragraphs": _paragraphs_by_line,
    "detectable_format:number_bullet_lists": _bullets_or_numbers,
    "combination:repeat_prompt": _repeats_or_quotes,
    "change_case:english_capital": str.isupper,
    "change_case:english_lowercase": str.islower,
}
"""Speech-IFEval's: dots and numbers are bullets too, every line is a paragraph, case without the language."""
