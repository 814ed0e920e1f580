"""Verdicts worked out by hand from the rules of IFEval and of Speech-IFEval."""

import pytest

from desta_jax.evaluation import sentences
from desta_jax.evaluation.ifeval import IFEVAL, SPEECH_IFEVAL, follows, follows_loosely

CASES = [  # instruction, its arguments, a response that follows, one that does not
    ("keywords:existence", {"keywords": ["train", "sea"]}, "TRAINS pass the sea.", "Trains pass the hills."),
    ("keywords:frequency", {"keyword": " rain ", "frequency": 2, "relation": "at least"}, "Rain, raining.", "Rain."),
    ("keywords:frequency", {"keyword": "rain", "frequency": 2, "relation": "less than"}, "Rain.", "Rain, raining."),
    ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "Concatenate.", "A Cat, there."),
    ("keywords:letter_frequency", {"letter": "Z", "let_frequency": 2, "let_relation": "at least"}, "Zz", "z"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "it's so", "it is"),
    ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "it is", "one two three"),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "Yes. No!", "Dr. No is in."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb", "a\n***\n\n***\nb"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***a***b***", "a***b***c"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "One.\n\n'then, two.",
        "Then.\n\nTwo.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a and b]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\np. s. one more", "Bye. PS one more"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S. more", "P.S. more"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n - b", "* a\n** b **\n• c"),
    ("detectable_format:constrained_response", {}, "Well. My answer is maybe. Yes", "My answer is unknown."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and *b*", "*a* and * *"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1 a SECTION 2 b",
        "Section 1 a Section 2 b",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<Joy>>\ntext", "<<  >> and <<a\nb>>"),
    ("combination:two_responses", {}, "******one******two", "one******one"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one************two"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, " say IT. It.", '"Say it" It.'),
    ("startend:end_checker", {"end_phrase": "The end."}, 'So. THE END."\n', "The end. Or not."),
    ("startend:quotation", {}, ' "a" ', '"'),
    (
        "change_case:english_capital",
        {},
        "ALL THE CHILDREN WERE PLAYING IN THE GARDEN",
        "ALL THE CHILDREN WERE PLAYING IN the GARDEN",
    ),
    (
        "change_case:english_lowercase",
        {},
        "all the children were playing in the garden",
        "All the children were playing in the garden",
    ),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": "at least"},
        "NASA and WELL-KNOWN",
        "NASA and Well-KNOWN",
    ),
    ("punctuation:no_comma", {}, "no comma; none", "a, comma"),
    ("language:response_language", {"language": "de"}, "Das ist ein deutscher Satz.", "This is not German at all."),
]


@pytest.mark.parametrize("name, arguments, right, wrong", CASES)
def test_rule(name, arguments, right, wrong):
    assert follows([name], [arguments], right, IFEVAL) == [True]
    assert follows([name], [arguments], wrong, IFEVAL) == [False]


SPEECH_CASES = [  # instruction, arguments, a response that follows Speech-IFEval's form of the rule and no other
    ("detectable_format:number_bullet_lists", {"num_bullets": 3}, "• a\n1. b\n- c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, r"* a\n* b"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\ntwo\n"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it"}, '"Say it" It.'),
    ("change_case:english_capital", {}, "DAS IST EIN DEUTSCHER SATZ"),
    ("change_case:english_lowercase", {}, "das ist ein deutscher satz"),
]


@pytest.mark.parametrize("name, arguments, response", SPEECH_CASES)
def test_speech_ifeval_has_rules_of_its_own(name, arguments, response):
    assert follows([name], [arguments], response, SPEECH_IFEVAL) == [True]
    assert follows([name], [arguments], response, IFEVAL) == [False]


def test_paragraphs_by_line_count_an_empty_one_between_asterisks():
    rule = ["length_constraints:number_paragraphs"]
    assert follows(rule, [{"num_paragraphs": 2}], "a\n\n\nb", SPEECH_IFEVAL) == [True]
    assert follows(rule, [{"num_paragraphs": 2}], "a\n*** ***b", SPEECH_IFEVAL) == [False]


@pytest.mark.parametrize("name", sorted(IFEVAL))
def test_an_empty_response_follows_nothing(name):
    assert follows([name], [{"unused": 1}], " \n", IFEVAL) == [False]


def test_null_arguments_are_left_out():
    given = {"num_bullets": 1, "keywords": None, "language": None}
    assert follows(["detectable_format:number_bullet_lists"], [given], "* a", IFEVAL) == [True]


def test_several_instructions_each_have_a_verdict():
    names = ["punctuation:no_comma", "startend:quotation"]
    assert follows(names, [{}, {}], "no comma, no quotes", IFEVAL) == [False, False]
    assert follows(names, [{}, {}], "neither", IFEVAL) == [True, False]


@pytest.mark.parametrize(
    "response", ["Sure!\n'the answer'", '"yes"\nHope this helps', 'Here:\n"yes"\nBye', '*"yes"*', 'Here:\n*"yes"*\nBye']
)
def test_loose_forgives_asterisks_and_first_and_last_lines(response):
    followed = follows_loosely(["startend:quotation"], [{}], response, IFEVAL)
    assert followed == ['"yes"' in response]
    assert follows(["startend:quotation"], [{}], response, IFEVAL) == [False]


def test_what_cannot_be_checked_is_an_error_that_says_why():
    with pytest.raises(ValueError, match="unknown instruction 'format:haiku'"):
        follows(["format:haiku"], [{}], "a", IFEVAL)
    with pytest.raises(ValueError, match="number_words"):
        follows(["length_constraints:number_words"], [{}], "a", IFEVAL)
    with pytest.raises(ValueError, match="'about' is none of less than, at least"):
        follows(["length_constraints:number_words"], [{"num_words": 1, "relation": "about"}], "a", IFEVAL)
    with pytest.raises(ValueError, match="2 instructions but 1 kwargs"):
        follows(["punctuation:no_comma", "startend:quotation"], [{}], "a", IFEVAL)


@pytest.mark.parametrize(
    "text, count",
    [
        ("One. Two? Three!", 3),
        ("Mr. Smith met Dr. Jones at 3.5 p.m. in the U.S. Army base.", 1),
        ("It cost $3.50... He paid. No full stop", 3),
        ('He said "Stop." Then he left.', 2),
        ("", 0),
    ],
)
def test_sentences_split_as_punkt_does(text, count):
    assert sentences.count_sentences(text) == count
