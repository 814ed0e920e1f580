"""What each filter drops, and what it must leave."""

import pytest

from desta_jax.construct.language import code_of, guess_language
from desta_jax.construct.quality import FAITHFUL, Reply, count_drops, judge

LONG = "The recording begins with a door, and then somebody walks across a wooden floor while rain falls outside. "


@pytest.mark.parametrize(
    "name, reply",
    [
        ("failed", Reply("", error="HTTP 500")),
        ("unfaithful", Reply("It is a man.", right=("female", "woman"), wrong=("male", "man"))),
        ("unfaithful", Reply("A female voice, or a male one.", right=("female",), wrong=("male",))),
        ("unfaithful", Reply("It is hard to say.", right=("Korean",))),
        ("unfaithful", Reply("The pitch is very low.", right=("Low",), wrong=("Very low",))),
        ("unfaithful", Reply("Very low, or rather low.", right=("Very low",), wrong=("Low",))),
        ("unfaithful", Reply("It lasts 14 seconds.", right=("4s",))),
        ("unfaithful", Reply("It lasts 4.5 seconds.", right=("4s",))),
        ("unfaithful", Reply("It lasts 4 seconds, or 5s.", right=("4s",), wrong=("5s",))),
        ("empty", Reply("")),
        ("empty", Reply(" \n")),
        ("empty", Reply("**...**")),
        ("cut_off", Reply("The speaker says that", cut=True)),
        ("repetition", Reply("ha " * 20)),
        ("repetition", Reply("It is a dog. It is a dog. It is a dog. It is a dog. It is a dog. It is")),
        ("repetition", Reply("狗在叫，很大声。" * 6)),
        (
            "repetition",
            Reply(" ".join(f"{n}. The dog barks at the cat, and then it runs around the house." for n in range(12))),
        ),
        ("refusal", Reply("I'm sorry, but I can't help with that.")),
        ("refusal", Reply("I cannot listen to audio files.")),
        ("refusal", Reply("I cannot hear any audio.")),
        ("refusal", Reply("I can't hear anything.")),
        ("refusal", Reply("Sorry, I am unable to do that.")),
        ("refusal", Reply("I'm sorry, but I'm an AI.")),
        ("refusal", Reply("As an AI language model, I have no ears.")),
        ("refusal", Reply("I don’t have the ability to hear.")),
        ("refusal", Reply("Please provide the audio clip.")),
        ("refusal", Reply("It seems that the audio was not provided.")),
        ("refusal", Reply("I'm sorry, I can't hear it.", words="I'm sorry, I was late.")),
        ("refusal", Reply("There is no audio.")),
        ("refusal", Reply("There is no audio to describe.")),
        ("refusal", Reply("You did not provide any audio file.")),
        ("reading", Reply("Hello there, how are you? (Emotion: Happy)", brackets=("(Emotion: Happy)",))),
        ("reading", Reply("Based on the description, it is a dog.")),
        ("reading", Reply("The provided text says so.")),
        ("reading", Reply("The text mentions a dog.")),
        ("reading", Reply("The text could then speak of the garden.")),
        ("reading", Reply("The voice is described as low.")),
        ("reading", Reply("According to the transcript, it rains.")),
        ("reading", Reply("From the information given in brackets, he is sad.")),
        ("reading", Reply("[00:00-00:05] A dog.")),
        ("reading", Reply("<start_audio>A dog.<end_audio>")),
        ("reading", Reply("A dog <|AUDIO|>")),
        ("reading", Reply("Hi (Mood: sad, Speaking speed: slow, Age: 20)")),
        ("reading", Reply("<start_video>A dog.")),
        ("echo", Reply("What is in this clip? I cannot say.", prompt="What is in this clip? I cannot say. Be short.")),
        ("echo", Reply("The audio clips and instructions are located in a video.")),
        ("echo", Reply("The user wants to know about a dog.")),
        ("wrong_language", Reply("Le chien est dans la maison et il est content de nous voir.", languages=("en",))),
        ("wrong_language", Reply("The dog is in the house and it is happy to see us.", languages=("fr",))),
        ("wrong_language", Reply("这是一只狗", languages=("en",))),
        ("wrong_language", Reply("The dog is in the house and it is happy to see us.", languages=("ja",))),
    ],
)
def test_what_is_dropped(name, reply):
    verdict = judge(reply, FAITHFUL)
    assert verdict is not None and verdict[0] == name and verdict[1]


@pytest.mark.parametrize(
    "reply",
    [
        Reply("Happy"),
        Reply("a dog", prompt="What is it? a dog or a cat"),
        Reply("The speaker sounds happy (and a little tired: it is late, as one hears: very late)."),
        Reply("7"),
        Reply("A Woman speaks.", right=("female", "woman"), wrong=("male", "man")),
        Reply("The pitch is very low.", right=("Very low",), wrong=("Low", "High")),
        Reply(LONG),
        Reply("The duration of the audio is 4 seconds.", right=("4s",), wrong=("5s",)),
        Reply("A 4-second clip with 5 words.", right=("4s",), wrong=("5s",)),
        Reply("I would give it 3.2 out of 5.", right=("3.2/5.0",)),
        Reply(
            "The speaker says, \"I'm sorry, I didn't mean to hurt you.\"", words="I’m sorry, I didn’t mean to hurt you."
        ),
        Reply("She said: I can't provide for my family.", words="Well, I can't provide for my family."),
        Reply(
            'He says "the description of the house was accurate".', words="The description of the house was accurate."
        ),
        Reply("The speaker did not provide a reason for the delay."),
        Reply("There is no audio distortion, and the voice is clear."),
        Reply("The text is likely from a novel.", prompt="Which text might this sentence come from?"),
        Reply("A happy voice (quite happy).", brackets=("(Emotion: Happy)",)),
        Reply("Hahaha, that was funny! Ha ha ha!"),
        Reply("| a | b |\n|------------------------------|------------------------------|\n| 1 | 2 |"),
        Reply("I'm sorry to hear that you feel this way."),
        Reply("I'm so sorry, I hope you feel better soon."),
        Reply("I can't help but notice the warmth in her voice."),
        Reply("I cannot hear any music in this clip."),
        Reply("They say: the user clicks the button.", words="Then the user clicks the button."),
        Reply("The speaker says that they cannot hear the music and cannot help it."),
        Reply("The speaker describes a long journey, with many details."),
        Reply("A man reads a text message aloud (he sounds tired)."),
        Reply("Le chien est dans la maison et il est content de nous voir.", languages=("fr",)),
        Reply("Le chien est dans la maison et il est content de nous voir.", languages=("de", "fr")),
        Reply("Le chien est dans la maison et il est content de nous voir."),
        Reply("Grazie mille, signora!", languages=("en",)),
        Reply("The dog is in the house and it is happy to see us.", languages=("sv",)),
        Reply('The speaker says "你好" and "再见", which means hello and goodbye in Chinese.', languages=("en",)),
    ],
)
def test_what_is_kept(reply):
    assert judge(reply, FAITHFUL) is None


def test_drops_are_counted_by_filter():
    counts = count_drops(["empty", "refusal", "empty"])
    assert list(counts) == list(FAITHFUL) and counts["empty"] == 2 and counts["refusal"] == 1 and counts["failed"] == 0


@pytest.mark.parametrize(
    "text, code",
    [
        ("The weather is nice today and we are going to the park with the children.", "en"),
        ("Il fait beau aujourd'hui et nous allons au parc avec les enfants dans une voiture.", "fr"),
        ("Hoy hace buen tiempo y vamos al parque con los niños en el coche de mi madre.", "es"),
        ("Das Wetter ist heute schön und wir gehen mit den Kindern in den Park.", "de"),
        ("Oggi il tempo è bello e andiamo al parco con i bambini nella macchina della mamma.", "it"),
        ("Hoje o tempo está bom e vamos ao parque com as crianças no carro da minha mãe.", "pt"),
        ("Het weer is vandaag mooi en we gaan met de kinderen naar het park in een auto.", "nl"),
        ("今天天气很好，我们去公园。", "zh"),
        ("今日は天気がいいので、公園に行きます。", "ja"),
        ("오늘 날씨가 좋아서 공원에 갑니다.", "ko"),
        ("Сегодня хорошая погода, и мы идём в парк.", "ru"),
        ("Dog", None),
        ("Xyzzy plugh frobnicate quux blorb fnord gnusto rezrov.", None),
    ],
)
def test_languages_are_told_apart(text, code):
    assert guess_language(text) == code


def test_languages_by_name_or_code():
    known = {"French": "fr", "fr": "fr", "fr-CA": "fr", "zh_CN": "zh", "eng": "en", "ger": "de", "English (US)": "en"}
    assert {name: code_of(name) for name in known} == known
    assert [code_of(name) for name in ("Klingon", "Englishman", "frr")] == ["klingon", "englishman", "frr"]
