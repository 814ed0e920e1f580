"""The pool: its file format, its conditions, and draws that repeat."""

import collections

import pytest

from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.instructions import Pool, Values, load_pool
from desta_jax.construct.sections import parse_pool

SYSTEM = "[system] needs=clips>=1\nListen.\n"


def pool_of(text):
    return Pool(parse_pool(SYSTEM + text, "mine.txt"))


def draws(pool, clips, count=60, corpus=None):
    values = Values(corpus or clips)
    return [pool.draw(clips, values, f"key {number}") for number in range(count)]


@pytest.fixture(scope="module")
def project():
    return load_pool()


@pytest.fixture
def dialogue():
    segments = [
        Segment(0, 1, "Hello there.", "A", {"Emotion": "Happy"}),
        Segment(1, 2, "Bye.", "B", {"Emotion": "Sad"}),
    ]
    return Clip("d.wav", "Test", "speech", segments, language="en")


def test_the_pool_holds_hundreds_of_instructions_in_every_category(project):
    lines = collections.Counter()
    for section in project.sections:
        lines[section.category.partition(":")[0]] += len(section.lines)
    assert len(project) > 800
    wanted = {"describe", "attribute", "speaker", "content", "text task", "reasoning", "scene", "role", "format"}
    assert wanted | {"clips", "sound", "music", "reply", "quality"} <= set(lines)
    assert min(lines.values()) >= 10


def test_no_instruction_stands_in_a_section_twice(project):
    for section in project.sections:
        assert len(set(section.lines)) == len(section.lines), section.place


def test_draws_repeat_with_their_key_and_vary_with_it(project, clip_of):
    clip = clip_of(words="Where is the station, please?", Emotion="Calm")
    assert draws(project, [clip]) == draws(project, [clip])
    assert len({instruction.text for instruction in draws(project, [clip])}) > 40


def test_nothing_about_words_is_asked_where_there_are_none(project, clip_of):
    categories = {drawn.category for drawn in draws(project, [clip_of(kind="sound", Sound="dog")], 600)}
    assert not any(category.startswith(("content", "text task", "reply")) for category in categories)
    assert "describe: sound" in categories and "reasoning: sound" in categories


def test_one_clip_is_never_compared_and_several_always_are(project, clip_of):
    one, two = clip_of("a.wav", "One sentence here."), clip_of("b.wav", "Two sentences there.")
    assert not any(drawn.category.startswith("clips") for drawn in draws(project, [one], 300))
    several = draws(project, [one, two], 300)
    assert all(drawn.category.startswith("clips") for drawn in several)
    assert {drawn.text.count("{audio}") for drawn in several} == {0, 2}


@pytest.mark.parametrize(
    "needs, clip, admitted",
    [
        ("words", dict(words="Hi."), True),
        ("words", dict(), False),
        ("words>=2", dict(words="Hi you."), True),
        ("words>=3", dict(words="Hi you."), False),
        ("words>=4", dict(words="看重成长质量"), True),
        ("sound", dict(kind="sound"), True),
        ("not sound", dict(kind="sound"), False),
        ("caption", dict(caption="A dog."), True),
        ("emotion", dict(Emotion="Sad"), True),
        ("Genre | Emotion", dict(Emotion="Sad"), True),
        ("Genre, Emotion", dict(Emotion="Sad"), False),
        ("in fr", dict(words="Oui.", language="French"), True),
        ("not in en", dict(words="Oui.", language="fr"), True),
        ("not in en", dict(words="Yes.", language="en-GB"), False),
        ("not in en", dict(words="Yes.", language=""), False),
        ("speakers>=1", dict(words="Hi."), True),
        ("segments>=2", dict(words="Hi."), False),
        ("clips=2", dict(words="Hi."), False),
        ("clips>=1", dict(words="Hi."), True),
    ],
)
def test_conditions(clip_of, needs, clip, admitted):
    (section,) = parse_pool(f"[x] needs={needs}\nWhat?", "mine.txt")
    assert section.admits([clip_of(**clip)]) is admitted


def test_a_condition_must_hold_for_every_clip(clip_of):
    (section,) = parse_pool("[x] needs=clips>=2, words\nWhat?", "mine.txt")
    assert section.admits([clip_of(words="Hi."), clip_of(words="Ho.")])
    assert not section.admits([clip_of(words="Hi."), clip_of()])


def test_weights_say_how_often_a_section_is_drawn(clip_of):
    drawn = draws(pool_of("[a] weight=3\nA?\n[b]\nB?\nC?\nD?"), [clip_of()], 4000)
    share = sum(instruction.category == "a" for instruction in drawn) / len(drawn)
    assert share == pytest.approx(0.75, abs=0.03)  # four standard errors of 4,000 draws are 0.027


def test_options_are_values_of_the_corpus_with_the_true_one(clip_of):
    corpus = [clip_of(f"{mood}.wav", Emotion=mood) for mood in ("Happy", "Sad", "Angry", "Calm", "Bored", "Proud")]
    pool = pool_of("[choice] about=Emotion\nWhich emotion? {options}")
    for instruction in draws(pool, corpus[:1], 30, corpus):
        named = [mood for mood in ("Happy", "Sad", "Angry", "Calm", "Bored", "Proud") if mood in instruction.text]
        assert "Happy" in named and len(named) == 4


def test_a_guess_is_true_half_of_the_time(clip_of):
    corpus = [clip_of("a.wav", Emotion="Happy"), clip_of("b.wav", Emotion="Sad")]
    drawn = draws(pool_of("[guess] about=*\nIs the {attribute} {guess}?"), corpus[:1], 2000, corpus)
    assert {instruction.text for instruction in drawn} == {"Is the emotion Happy?", "Is the emotion Sad?"}
    share = sum("Happy" in instruction.text for instruction in drawn) / len(drawn)
    assert share == pytest.approx(0.5, abs=0.05)  # four standard errors of 2,000 draws are 0.045


def test_no_options_where_every_clip_has_a_value_of_its_own(clip_of):
    corpus = [clip_of(f"{number}.wav", Duration=f"{number}.5") for number in range(5)]
    assert draws(pool_of("[choice] about=*\nWhich {attribute}? {options}"), corpus[:1], 3, corpus) == [None] * 3


def test_nothing_is_asked_about_what_differs_between_speakers(dialogue):
    assert draws(pool_of("[x] about=Emotion\nWhat is the {attribute}?"), [dialogue], 2) == [None] * 2
    assert dialogue.said["Emotion"] == "Happy" and "Emotion" not in dialogue.uniform


def test_additions_go_after_or_around_an_instruction_of_their_base(clip_of):
    pool = pool_of("[describe: x] weight=0.001\nWhat?\n[role] base=describe\nYou are a cat. {instruction}\nBe short.")
    texts = {instruction.text for instruction in draws(pool, [clip_of()])}
    assert {"You are a cat. What?", "What? Be short."} <= texts


def test_the_language_of_the_response(clip_of):
    def languages(wanted, **clip):
        pool = pool_of(f"[x] language={wanted}\nWhat?")
        return draws(pool, [clip_of(words="Mot.", **clip)], 1)[0].languages

    assert languages("fr") == ("fr",)
    assert languages("any") == ()
    assert languages("same", language="German") == ("de",)
    assert languages("either", language="de") == ("de", "en")
    assert languages("same", language="") == ()


def test_a_section_may_have_its_own_system_prompt(clip_of):
    pool = pool_of("[x] system=Be terse.\n{audio}\n")
    (drawn,) = draws(pool, [clip_of()], 1)
    assert (drawn.system, drawn.text) == ("Be terse.", "{audio}")


@pytest.mark.parametrize(
    "text, message",
    [
        ("What?", "mine.txt:1: an instruction before the first"),
        ("[x\nWhat?", "mine.txt:1: a section's first line"),
        ("[x] need=words\nWhat?", "mine.txt:1: 'need=words' is none of"),
        ("[x] weight=much\nWhat?", "mine.txt:1"),
        ("[x] needs=letters>=3\nWhat?", "only words, speakers, segments and clips"),
        ("[x]\nIs it {guess}?", "mine.txt:2.*needs about="),
        ("[x]\nIs it {value}?", "mine.txt:2: {value} is none of"),
        ("[x]\n\n[y]\nWhat?", "mine.txt:1: .x. holds no instruction"),
        ("[x] base=lost\nShort.\n[y]\nWhat?", "base=lost is no category"),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(text, message):
    with pytest.raises(ValueError, match=message):
        Pool(parse_pool(text, "mine.txt") + parse_pool(SYSTEM, "s.txt"))


def test_a_folder_of_ones_own_is_added(tmp_path, project):
    (tmp_path / "mine.txt").write_text("[mine]\nWhat?\n")
    assert len(load_pool([str(tmp_path)])) == len(project) + 1
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_pool([str(tmp_path / "lost")])


def test_a_question_about_an_attribute_knows_what_its_answer_must_say(clip_of):
    corpus = [clip_of(Gender="female"), clip_of(Gender="male")]
    pool = pool_of("[who] about=Gender\nWhat is the {attribute}? {options}\n[upper] base=who\nUse upper case.")
    for clip, right, wrong in ((corpus[0], "female", "male"), (corpus[1], "male", "female")):
        drawn = [pool.draw([clip], Values(corpus), str(key)) for key in range(20)]
        assert {(each.right, each.wrong) for each in drawn} == {((right,), (wrong,))}
        assert {each.category for each in drawn} == {"who", "upper"}


def test_a_guess_may_be_answered_without_the_value(clip_of):
    pool = pool_of("[x] about=Gender\nIs the {attribute} {guess}?")
    drawn = pool.draw([clip_of(Gender="female")], Values([clip_of(Gender="male")]), "0")
    assert (drawn.right, drawn.wrong) == ((), ())


def test_categories_can_be_held_out(clip_of):
    pool = pool_of("[a]\nA?\n[b: one]\nB?\n[b: two]\nC?").without(["b"])
    assert {drawn.category for drawn in draws(pool, [clip_of()], 50)} == {"a"}
    pool = pool_of("[a]\nA?\n[b]\nB?\n[c] base=a, b\nOn one.\n[d] base=b\nOn b.").without(["b"])
    assert {drawn.text for drawn in draws(pool, [clip_of()], 50)} == {"A?", "A? On one."}, (
        "what was added to it goes too"
    )
    with pytest.raises(ValueError, match="no category 'z' to leave out; there are a, c"):
        pool.without(["z"])
