"""Columns to seed descriptions, in the form of the public dataset's."""

import pytest

from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.describe import build_clips, quantiles
from desta_jax.construct.drafts import BadRow, parse_time, read_drafts
from desta_jax.construct.run import describe
from desta_jax.construct.source import known_sources, load_source, parse_source


def clips_of(tmp_path, source, text, name="m.csv"):
    (tmp_path / name).write_text(text)
    drafts, problems = read_drafts(str(tmp_path / name), source)
    clips, more = build_clips(drafts, source)
    return clips, problems + more


def descriptions(tmp_path, source, text):
    clips, problems = clips_of(tmp_path, source, text)
    assert not problems
    return [clip.describe() for clip in clips]


@pytest.mark.parametrize(
    "clip, line",
    [  # lines of the public dataset, as its documentation shows them
        (
            Clip(
                "a.wav",
                "DailyTalk",
                "speech",
                [Segment(words="I'm figuring out my budget.", attributes={"Emotion": "No emotion", "Act": "Inform"})],
                attributes={"Duration": "2s"},
                duration=2.2,
            ),
            "[00:00-00:02] I'm figuring out my budget. (Emotion: No emotion, Act: Inform, Duration: 2s)",
        ),
        (
            Clip("a.wav", "Wavcaps", "sound", [Segment()], "There is the sound of a truck.", duration=10),
            "[00:00-00:10] (There is the sound of a truck.)",
        ),
        (
            Clip("a.wav", "FMA", "music", [Segment(attributes={"Genre": "Rock"})], duration=30.02),
            "[00:00-00:30] (Genre: Rock)",
        ),
        (
            Clip("a.wav", "VCTK", "speech", [Segment(attributes={"Noise": "Noisy"})], "4 speakers talking", {}, 3),
            "[00:00-00:03] (4 speakers talking) (Noise: Noisy)",
        ),
        (
            Clip("a.wav", "M", "music", [Segment(attributes={"Stroke": "cha"})], duration=0.3),
            "[00:00-00:01] (Stroke: cha)",
        ),
        (Clip("a.wav", "X", "speech", [Segment(words="Hi.")]), "Hi."),
    ],
)
def test_description_of_one_segment(clip, line):
    assert clip.describe() == line


def test_description_of_several_speakers_has_a_line_each():
    segments = [Segment(0.0, 1.6, "Hello?", "Ann", {"Mood": "calm"}), Segment(62.0, 63.4, "Yes.", "Bob")]
    clip = Clip("a.wav", "X", "speech", segments, attributes={"Duration": "64s"}, duration=64)
    assert clip.describe().splitlines() == [
        '[00:00-00:02] Ann: "Hello?" (Mood: calm)',
        '[01:02-01:03] Bob: "Yes."',
        "[00:00-01:04] (Duration: 64s)",
    ]
    assert clip.transcript == "Hello? Yes." and clip.speakers == 2
    assert clip.brackets == ["(Mood: calm)", "(Duration: 64s)"]


def test_attributes_come_in_the_sources_order_and_missing_ones_are_left_out(tmp_path, source_of):
    source = source_of(
        words="text",
        duration="len",
        attributes=[
            {"name": "Emotion", "column": "emo", "values": {"ang": "Angry"}, "missing": ["xxx"]},
            {"name": "Gender", "column": "sex", "case": "title"},
            {"name": "Arousal", "column": "act", "decimals": 1, "unit": "/5.0"},
            {"name": "Tags", "column": "tags", "split": ";"},
            {"name": "Noise", "column": "noise", "values": {"none": "no noise"}},
        ],
    )
    text = "audio,sex,emo,text,len,act,tags,noise\na,male,ang,Hi.,1.9,3.25,x; y,none\nb,Unknown,xxx,Ho.,1.4,,,\n"
    assert descriptions(tmp_path, source, text) == [
        "[00:00-00:02] Hi. (Emotion: Angry, Gender: Male, Arousal: 3.3/5.0, Tags: x, y, Noise: no noise)",
        "[00:00-00:01] Ho.",
    ]


def test_buckets_are_quantiles_of_the_corpus(tmp_path, source_of):
    buckets = [{"name": "Pitch", "column": "f0", "buckets": ["Low", "Normal", "High"]}]
    text = "audio,f0\n" + "".join(f"{number},{number * number}\n" for number in range(9))
    clips, _ = clips_of(tmp_path, source_of(attributes=buckets), text)
    assert [clip.said["Pitch"] for clip in clips] == ["Low"] * 3 + ["Normal"] * 3 + ["High"] * 3
    assert quantiles([5, 1, 3, 2, 4, 6], 3) == [3, 5]


@pytest.mark.parametrize(
    ("numbers", "said"),
    [([7], ["Normal"]), ([7, 7, 7], ["Normal"] * 3), ([1] * 6 + [2, 3, 4, 5], ["Low"] * 6)],
)
def test_buckets_of_numbers_that_are_all_alike(tmp_path, source_of, numbers, said):
    buckets = [{"name": "Pitch", "column": "f0", "buckets": ["Lowest", "Low", "Normal", "High", "Highest"]}]
    text = "audio,f0\n" + "".join(f"clip{n},{number}\n" for n, number in enumerate(numbers))
    clips, _ = clips_of(tmp_path, source_of(attributes=buckets), text)
    assert [clip.uniform["Pitch"] for clip in clips][: len(said)] == said


def test_buckets_within_each_value_of_another_column(tmp_path, source_of):
    buckets = [{"name": "Pitch", "column": "f0", "buckets": ["Low", "High"], "by": "sex"}]
    text = "audio,sex,f0\na,f,200\nb,f,240\nc,m,100\nd,m,140\n"
    clips, _ = clips_of(tmp_path, source_of(attributes=buckets), text)
    assert [clip.said["Pitch"] for clip in clips] == ["Low", "High", "Low", "High"]


def test_buckets_with_given_edges(tmp_path, source_of):
    buckets = [{"name": "Noise", "column": "snr", "buckets": ["Noisy", "Clean"], "edges": [15]}]
    clips, _ = clips_of(tmp_path, source_of(attributes=buckets), "audio,snr\na,14.9\nb,15\n")
    assert [clip.said["Noise"] for clip in clips] == ["Noisy", "Clean"]


def test_segments_of_one_audio_are_one_clip_in_order_of_time(tmp_path, source_of):
    source = source_of(words="text", start="from", end="to", speaker="who")
    text = "audio,who,from,to,text\na,B,0:04,0:06.5,Two.\na,A,0,3,One.\nb,C,1,2,Other.\n"
    assert descriptions(tmp_path, source, text) == [
        '[00:00-00:03] A: "One."\n[00:04-00:07] B: "Two."',
        "[00:01-00:02] Other.",
    ]


def test_turns_without_a_start_stay_where_they_stand_and_none_is_said_twice(tmp_path, source_of):
    source = source_of(words="text", start="from", end="to", speaker="who")
    rows = ["a,A,0.5,1,One.", "a,B,,,Two.", "a,A,4,4,Three.", "a,A,0.5,1,One.", "a,B,6,7,"]
    assert descriptions(tmp_path, source, "\n".join(["audio,who,from,to,text", *rows])) == [
        '[00:01-00:02] A: "One."\nB: "Two."\n[00:04-00:05] A: "Three."\n[00:06-00:07] B',
    ]


def test_a_clip_of_which_a_turn_is_lacking_is_left_out(tmp_path, source_of):
    source = source_of(words="text", start="from", end="to")
    rows = ["a,0,1,One.", "a,3,2,Two.", "b,soon,2,Three.", "b,2,3,Four.", "c,0,1,Five."]
    clips, problems = clips_of(tmp_path, source, "\n".join(["audio,from,to,text", *rows]))
    assert [clip.audio for clip in clips] == ["c"]
    assert [(problem.place, problem.reason) for problem in problems] == [
        ("m.csv:3", "bad_time"),
        ("m.csv:4", "bad_time"),
        ("m.csv:3", "missing_turn"),
        ("m.csv:4", "missing_turn"),
    ]


@pytest.mark.parametrize(("seconds", "said"), [(0.3, "1s"), (1.4, "1s"), (1.5, "2s")])
def test_no_clip_lasts_no_second(tmp_path, seconds, said):
    (tmp_path / "m.csv").write_text(f"audio,length\na,{seconds}\n")
    (tmp_path / "test.toml").write_text(
        'name = "T"\nkind = "sound"\naudio = "audio"\nduration = "length"\n'
        'attributes = [{ name = "Duration", measure = "duration", unit = "s", decimals = 0 }]\n'
    )
    corpus = describe(str(tmp_path / "m.csv"), str(tmp_path / "test.toml"))
    assert [clip.said["Duration"] for clip in corpus.clips] == [said]


def test_what_is_wrong_with_a_joined_table_is_told(tmp_path, source_of):
    table = 'ID\tSaid\n7\t"A, quoted"\n8\tOne\tcell more\n9\tCaf\udce9\n'
    (tmp_path / "said.tsv").write_bytes(table.encode("utf-8", "surrogateescape"))
    join = [{"table": "said.tsv", "key": "ID", "on": "id", "delimiter": "\t"}]
    source = source_of(words="Said", join=join, quotes=False, delimiter="\t", attributes=[{"name": "N", "column": "n"}])
    clips, problems = clips_of(tmp_path, source, "audio\tid\tn\na\t7\t1\nb\t8\t2\nc\t9\t3\n")
    assert [clip.words for clip in clips] == ["A, quoted", "", ""]
    assert [(problem.place, problem.reason) for problem in problems] == [
        ("said.tsv:3", "wrong_cells"),
        ("said.tsv:4", "invalid_utf8"),
    ]


def test_whole_numbers_that_pandas_made_floats_are_whole(tmp_path, source_of):
    source = source_of(audio="dia{dialogue}_{rate}.wav", speaker="who", words="text")
    (tmp_path / "m.json").write_text('[{"dialogue": 3.0, "rate": 0.5, "who": 1.0, "text": "Hi."}]')
    (draft,), _ = read_drafts(str(tmp_path / "m.json"), source)
    assert (draft.audio, draft.speaker) == ("dia3_0.5.wav", "1")


def test_columns_are_parsed_joined_and_filtered(tmp_path, source_of):
    (tmp_path / "people.csv").write_text("ID,Sex\n7,f\n")
    (tmp_path / "labels.csv").write_text("mid,name\n/m/1,Dog\n/m/2,Bark\n")
    source = source_of(
        audio="wav/{person}_{number}.wav",
        only={"split": "^train"},
        parse=[{"column": "file", "pattern": r"(?P<person>\d+)-(?P<number>\d+)"}],
        join=[{"table": "people.csv", "key": "ID", "on": "person"}],
        constants={"place": "studio"},
        attributes=[
            {"name": "Gender", "column": "Sex", "values": {"f": "Female"}},
            {
                "name": "Sounds",
                "column": "mids",
                "split": ",",
                "labels": {"table": "labels.csv", "key": "mid", "value": "name"},
            },
            {"name": "Place", "column": "place"},
        ],
    )
    clips, problems = clips_of(
        tmp_path, source, 'file,split,mids\n7-1,train,"/m/1,/m/2"\n7-2,test,/m/1\nx,train,/m/1\n'
    )
    assert [(clip.audio, clip.describe()) for clip in clips] == [
        ("wav/7_1.wav", "(Gender: Female, Sounds: Dog, Bark, Place: studio)")
    ]
    assert [(problem.place, problem.reason) for problem in problems] == [("m.csv:4", "unparsable_column")]


def test_one_of_several_captions_is_taken_by_seed(tmp_path, source_of):
    source = source_of(kind="sound", captions=["c1", "c2"])
    (tmp_path / "m.csv").write_text("audio,c1,c2\n" + "".join(f"{n},one,two\n" for n in range(40)))
    draws = [[draft.caption for draft in read_drafts(str(tmp_path / "m.csv"), source, seed)[0]] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2] and set(draws[0]) == {"one", "two"}


@pytest.mark.parametrize(
    "row, reason",
    [
        ("a,Hi.,soon,2,1", "bad_time"),
        ("a,Hi.,3,2,1", "bad_time"),
        (",Hi.,0,1,1", "no_audio_path"),
        ("a,,0,1,", "nothing_known"),
        ("a,Hi.,0,45,1", "too_long"),
    ],
)
def test_a_bad_row_is_named_and_the_rest_goes_on(tmp_path, source_of, row, reason):
    source = source_of(words="text", start="from", end="to", attributes=[{"name": "N", "column": "n"}])
    clips, problems = clips_of(tmp_path, source, f"audio,text,from,to,n\n{row}\nb,Good.,0,1,1\n")
    assert [clip.audio for clip in clips] == ["b"]
    assert [(problem.place, problem.reason) for problem in problems] == [("m.csv:2", reason)]


def test_a_bad_number_costs_only_its_attribute(tmp_path, source_of):
    source = source_of(words="text", attributes=[{"name": "SNR", "column": "snr", "decimals": 0}])
    clips, problems = clips_of(tmp_path, source, "audio,text,snr\na,Hi.,loud\nb,Ho.,12\n")
    assert [clip.describe() for clip in clips] == ["Hi.", "Ho. (SNR: 12)"]
    assert [(problem.place, problem.reason) for problem in problems] == [("m.csv:2", "bad_number")]


def test_a_second_row_of_the_same_clip_is_a_duplicate(tmp_path, source_of):
    clips, problems = clips_of(tmp_path, source_of(words="text"), "audio,text\na,One.\na,Two.\n")
    assert [clip.words for clip in clips] == ["One."]
    assert problems[0].reason == "duplicate_id" and problems[0].place == "m.csv:3" and "m.csv:2" in problems[0].detail


def test_an_unknown_column_is_told_once_and_what_it_says_left_out(tmp_path, source_of):
    source = source_of(words="text", attributes=[{"name": "Mood", "column": "mood"}])
    clips, problems = clips_of(tmp_path, source, "audio,text\na,One.\nb,Two.\n")
    assert [clip.describe() for clip in clips] == ["One.", "Two."]
    assert len(problems) == 1 and problems[0].reason == "unknown_column" and "'mood'" in problems[0].detail


@pytest.mark.parametrize(
    "given, text, language",
    [
        ("language", "audio,text,language\na,One.,fr\n", "fr"),
        ("language", "audio,text,language\na,One.,\n", ""),
        ("en", "audio,text\na,One.\n", "en"),
        ("sv", "audio,text\na,One.\n", "sv"),
        ("French", "audio,text\na,One.\n", "French"),
    ],
)
def test_the_language_is_a_column_or_a_code(tmp_path, source_of, given, text, language):
    (clip,), problems = clips_of(tmp_path, source_of(words="text", language=given), text)
    assert clip.language == language and not problems


def test_a_language_without_its_column_is_not_known(tmp_path, source_of):
    (clip,), (problem,) = clips_of(tmp_path, source_of(words="text", language="language"), "audio,text\na,One.\n")
    assert clip.language == "" and problem.reason == "unknown_column" and "'language'" in problem.detail


def test_metadata_without_the_column_of_the_audio_is_refused(tmp_path, source_of):
    with pytest.raises(ValueError, match="no column 'audio'.*path, text"):
        clips_of(tmp_path, source_of(words="text"), "path,text\na,One.\n")


@pytest.mark.parametrize("text, seconds", [("12.5", 12.5), ("4s", 4), ("1:02.5", 62.5), ("1:00:01", 3601)])
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "1:2:3:4", "1::2"])
def test_what_is_no_time(text):
    with pytest.raises(BadRow, match="is no time"):
        parse_time(text)


def test_missing_and_unreadable_audio_are_named(spoken, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"RIFF and no more")
    rows = "audio,text\nbad.wav,Bad.\nlost.wav,Lost.\n"
    (tmp_path / "m.csv").write_text(rows)
    corpus = describe(str(tmp_path / "m.csv"), "speech", audio_root=str(tmp_path))
    assert not corpus.clips
    reasons = {problem.place: problem.reason for problem in corpus.problems if problem.reason != "unknown_column"}
    assert reasons == {"m.csv:2": "bad_audio", "m.csv:3": "missing_audio"}
    good = describe(str(spoken / "metadata.csv"), "speech", audio_root=str(spoken)).clips[0]
    assert good.describe() == "[00:00-00:01] This is sentence number 0 of them all. (Emotion: happy, Duration: 1s)"


def test_every_source_of_the_project_can_be_read():
    sources = {name: load_source(name) for name in known_sources()}
    assert len(sources) > 50 and {source.kind for source in sources.values()} == {"speech", "sound", "music"}
    assert all(source.words or source.caption or source.captions or source.attributes for source in sources.values())


def test_sources_of_well_known_datasets(tmp_path):
    """Rows as these datasets are distributed."""
    (tmp_path / "folders.csv").write_text("label,folder\n快乐,Happy\n")
    cases = {
        "esc50": "filename,fold,target,category,esc10,src_file,take\n1-100032-A-0.wav,1,0,dog,True,100032,A\n",
        "meld": "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime\n"
        '1,Take it.,Ross,neutral,neutral,0,3,8,21,"00:16:16,059","00:16:21,731"\n',
        "common_voice_en": "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\tsegment\n"
        'x\tc.mp3\tThe "boy swore.\t2\t0\tthirties\tmale_masculine\tEngland English\ten\t\n',
        "mridangam": "224030__akshaylaya__bheem-b-001.wav\n",
        "clotho": "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\nd.wav,A.,A.,A.,A.,A.\n",
        "esd_zh": "0001_000701\t打远一看。\t快乐\n",
        "vctk": "audio.path,file,text,gender\np225_001.flac,/data/p225_001.flac,Hi.,F\n",
        "gtzan": "audio.path,file,genre\npop.00098.wav,/data/genres/pop/pop.00098.wav,pop\n",
        "libritts_r": "path,text,gender\n/data/LibriTTS_R/dev-clean/84/121123/84_121123_000007.wav,Hi.,male\n",
    }
    told = {}
    for name, text in cases.items():
        file = tmp_path / f"{name}{'.tsv' if name.startswith('common') else '.csv'}"
        file.write_text(text)
        drafts, _ = read_drafts(str(file), load_source(name))
        (clip,), _ = build_clips(drafts, load_source(name))
        told[name] = (clip.audio, clip.describe())
    assert told == {
        "esc50": ("audio/1-100032-A-0.wav", "(Audio category: dog)"),
        "meld": ("dia0_utt3.wav", "Take it. (Emotion: Neutral, Sentiment: Neutral)"),
        "common_voice_en": ("clips/c.mp3", 'The "boy swore. (Gender: Male, Age: thirties, Accent: England English)'),
        "mridangam": (
            "224030__akshaylaya__bheem-b-001.wav",
            "(Stroke: bheem, Tonic: b, Instrument: mridangam)",
        ),
        "clotho": ("d.wav", "(A.)"),
        "esd_zh": ("0001/Happy/0001_000701.wav", "打远一看。 (Emotion: Happy)"),
        "vctk": ("p225_001.flac", "Hi. (Gender: Female)"),
        "gtzan": ("pop.00098.wav", "(Genre: pop)"),
        "libritts_r": ("dev-clean/84/121123/84_121123_000007.wav", "Hi. (Gender: male)"),
    }


@pytest.mark.parametrize(
    "content, message",
    [
        ({"name": "X", "kind": "speech"}, "'audio' is missing"),
        ({"name": "X", "kind": "noise", "audio": "a"}, "'noise' is none of speech, sound, music"),
        ({"name": "X", "kind": "speech", "audio": "a", "word": "t"}, "'word'; did you mean 'words'"),
        ({"name": "X", "kind": "speech", "audio": "a", "attributes": [{"name": "N"}]}, "'N' needs either"),
        (
            {"name": "X", "kind": "speech", "audio": "a", "attributes": [{"name": "N", "column": "n", "units": "s"}]},
            "'units'; did you mean 'unit'",
        ),
    ],
)
def test_a_wrong_source_file_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        parse_source(content)


def test_an_unknown_source_is_refused_with_a_suggestion():
    with pytest.raises(FileNotFoundError, match="did you mean 'iemocap'"):
        load_source("iemocop")
