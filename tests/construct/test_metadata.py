"""Metadata of every kind to rows, and bad rows named while the rest goes on."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from desta_jax.construct.metadata import Problem, Row, read_rows

TWO = [{"audio": "a.wav", "text": "One, two"}, {"audio": "b.wav", "text": "Zwölf"}]


def fields(path, source):
    rows = list(read_rows(str(path), source))
    assert all(isinstance(row, Row) for row in rows), rows
    return [dict(row.fields) for row in rows]


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "name, text",
    [
        ("m.csv", 'audio,text\na.wav,"One, two"\nb.wav,Zwölf\n'),
        ("m.csv", '\ufeffaudio, text\na.wav, "One, two"\n\nb.wav, Zwölf\n'),
        ("m.tsv", "audio\ttext\na.wav\tOne, two\nb.wav\tZwölf\n"),
        ("m.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in TWO)),
        ("m.json", json.dumps(TWO)),
        ("m.json", json.dumps({"version": 1, "data": TWO})),
    ],
)
def test_tables_and_json_give_the_same_rows(tmp_path, source_of, name, text):
    assert fields(write(tmp_path / name, text), source_of()) == TWO


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_what_pandas_writes_for_an_empty_cell_is_one(tmp_path, source_of, form):
    if form == "jsonl":
        write(tmp_path / "m.jsonl", '{"audio": "a.wav", "text": NaN, "duration": 2.5}\n')
    else:
        table = pyarrow.table({"audio": ["a.wav"], "text": [float("nan")], "duration": [2.5]})
        pyarrow.parquet.write_table(table, tmp_path / "m.parquet")
    assert fields(tmp_path / f"m.{form}", source_of()) == [{"audio": "a.wav", "text": None, "duration": 2.5}]


def test_a_source_says_how_its_table_is_written(tmp_path, source_of):
    path = write(tmp_path / "m.txt", '# a comment\na.wav|He said "no\nb.wav|Yes\n')
    source = source_of(header=["audio", "text"], delimiter="|", quotes=False, comment="#")
    assert [row["text"] for row in fields(path, source)] == ['He said "no', "Yes"]


def test_an_object_of_objects_has_its_keys_as_a_column(tmp_path, source_of):
    path = write(tmp_path / "m.json", json.dumps({"a": {"pitch": 3, "more": {"x": 1}}}))
    assert fields(path, source_of()) == [{"key": "a", "pitch": 3, "more.x": 1}]


def test_kaldi_folder(tmp_path, source_of):
    write(tmp_path / "wav.scp", "u1 a.wav\nu2 flac -c -d -s b/c.flac |\n")
    write(tmp_path / "text", "u1 hello there\nu2 bye\n")
    write(tmp_path / "utt2spk", "u1 s1\nu2 s2\n")
    write(tmp_path / "spk2gender", "s1 f\ns2 m\n")
    write(tmp_path / "utt2dur", "u1 1.5\nu2 2\n")
    one = {"id": "u1", "audio": "a.wav", "text": "hello there", "duration": "1.5", "speaker": "s1", "gender": "f"}
    two = {"id": "u2", "audio": "b/c.flac", "text": "bye", "duration": "2", "speaker": "s2", "gender": "m"}
    assert fields(tmp_path, source_of()) == [one, two]


def test_kaldi_segments_name_their_recording_and_times(tmp_path, source_of):
    write(tmp_path / "wav.scp", "rec a.wav\n")
    write(tmp_path / "segments", "u1 rec 0.5 2.25\nu2 lost 0 1\nu3\n")
    write(tmp_path / "text", "u1 hello\n")
    row, problem, last = read_rows(str(tmp_path), source_of())
    assert row.fields == {"id": "u1", "audio": "a.wav", "text": "hello", "start": "0.5", "end": "2.25"}
    assert problem.reason == "bad_row" and "u2" in problem.detail and problem.place.endswith("segments:2")
    assert last.reason == "bad_row" and "u3" in last.detail and last.place.endswith("segments:3")


@pytest.mark.parametrize("form", ["stream", "file", "parquet"])
def test_hugging_face_dataset_on_disk(tmp_path, source_of, form):
    """As `Dataset.save_to_disk` writes it (an Arrow stream with the features in its schema), and its other forms."""
    features = {"label": {"names": ["dog", "cat"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}
    meta = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    audio = [{"bytes": b"RIFF", "path": "a.wav"}, {"bytes": None, "path": "b.wav"}]
    table = pyarrow.table({"audio": audio, "text": ["x", "y"], "label": [1, 0]}).replace_schema_metadata(meta)
    if form == "parquet":
        pyarrow.parquet.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    else:
        new = {"stream": pyarrow.ipc.new_stream, "file": pyarrow.ipc.new_file}[form]
        with new(str(tmp_path / "data-00000-of-00001.arrow"), table.schema) as writer:
            writer.write_table(table)
    rows = fields(tmp_path, source_of())
    assert rows[0] == {"audio.path": "a.wav", "text": "x", "label": "cat"}
    assert (rows[1]["audio.path"], rows[1]["label"]) == ("b.wav", "dog")
    with_bytes = next(read_rows(str(tmp_path), source_of(), with_bytes=True))
    assert with_bytes.fields["audio.bytes"] == b"RIFF"


@pytest.fixture
def save(tmp_path):
    """Writes a dataset as `Dataset.save_to_disk` does, and what a later `map` leaves beside it."""

    def write_stream(path, text):
        table = pyarrow.table({"audio": ["a.wav"], "text": [text]})
        with pyarrow.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)

    def make(name, state=True):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        write_stream(folder / "data-00000-of-00001.arrow", "saved")
        write_stream(folder / "cache-0a1b2c.arrow", "mapped")
        if state:
            files = [{"filename": "data-00000-of-00001.arrow"}]
            write(folder / "state.json", json.dumps({"_data_files": files, "_split": name}))

    return make


@pytest.mark.parametrize("state", [True, False])
def test_what_datasets_keeps_beside_a_saved_dataset_is_not_read(tmp_path, source_of, save, state):
    save("train", state)
    assert fields(tmp_path / "train", source_of()) == [{"audio": "a.wav", "text": "saved"}]
    assert fields(tmp_path, source_of()) == [{"audio": "a.wav", "text": "saved"}]


def test_saved_splits_are_not_put_together(tmp_path, source_of, save):
    save("train")
    save("test")
    with pytest.raises(ValueError, match=r"several datasets \(test, train\); give the folder of one"):
        list(read_rows(str(tmp_path), source_of()))


@pytest.mark.parametrize(
    "name, content, reason, line",
    [
        ("m.csv", b"audio,text\na.wav,caf\xe9\nb.wav,good\n", "invalid_utf8", 2),
        ("m.csv", b"audio,text\na.wav,x,y\nb.wav,good\n", "wrong_cells", 2),
        ("m.csv", b"audio,text\na.wav\nb.wav,good\n", "wrong_cells", 2),
        ("m.jsonl", b'{"audio": "a.wav", "text": "\xff"}\n{"audio": "b.wav", "text": "good"}\n', "invalid_utf8", 1),
        ("m.jsonl", b'{"audio": \n{"audio": "b.wav", "text": "good"}\n', "bad_json", 1),
        ("m.jsonl", b'[1]\n{"audio": "b.wav", "text": "good"}\n', "bad_json", 1),
    ],
)
def test_a_bad_row_is_named_and_the_rest_goes_on(tmp_path, source_of, name, content, reason, line):
    (tmp_path / name).write_bytes(content)
    problem, row = read_rows(str(tmp_path / name), source_of())
    assert isinstance(problem, Problem) and (problem.reason, problem.place) == (reason, f"{name}:{line}")
    json.loads(problem.to_json())
    assert row.fields == {"audio": "b.wav", "text": "good"}


def test_files_that_are_no_metadata_are_refused(tmp_path, source_of):
    with pytest.raises(FileNotFoundError, match="nothing.csv"):
        list(read_rows(str(tmp_path / "nothing.csv"), source_of()))
    with pytest.raises(ValueError, match="neither a Kaldi folder"):
        list(read_rows(str(tmp_path), source_of()))
    with pytest.raises(ValueError, match=".xlsx"):
        list(read_rows(str(write(tmp_path / "m.xlsx", "")), source_of()))
    with pytest.raises(ValueError, match="not JSON"):
        list(read_rows(str(write(tmp_path / "m.json", "{")), source_of()))
