"""Checking a directory of records finds every kind of damage, and goes on past it."""

import json
import shutil

import fsspec
import pytest

from desta_jax.audio import load
from desta_jax.records import index as indexing
from desta_jax.records import schema, tfrecord
from desta_jax.records.read import RecordSource
from desta_jax.records.verify import verify


def check(directory, workers=1):
    return verify(str(directory), workers=workers, report=lambda line: None)


@pytest.fixture
def copy(records, tmp_path):
    return shutil.copytree(records, tmp_path / "copy")


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def rewrite(directory, change):
    """Makes one shard again with each sample changed, checksums and index in order."""
    source = RecordSource(directory)
    entries, data = [], b""
    for number in range(4):
        sample = change(number, schema.decode(source[number]))
        record, text_length = schema.encode(sample)
        header, footer = tfrecord.frame(record)
        entries.append(indexing.entry_of(record, len(data) + tfrecord.HEADER, text_length, sample.num_samples))
        data += header + record + footer
    (directory / source.index.shards[0]).write_bytes(data)
    others = [source.index.shard(number) for number in (1, 2)]
    parts = [indexing.columns(entries), *({name: getattr(other, name) for name in _COLUMNS} for other in others)]
    (directory / "index.npz").write_bytes(indexing.join(source.index.shards, parts).to_bytes())


_COLUMNS = ("offset", "length", "text_length", "text_checksum", "clips", "samples")


@pytest.mark.parametrize("workers", [1, 2])
def test_good_records_are_counted(records, workers):
    source = RecordSource(records)
    report = check(records, workers)
    assert report.problems == []
    assert (report.records, report.clips, report.samples) == (12, source.clips.sum(), source.index.samples.sum())


def test_each_flipped_bit_is_found_with_shard_number_and_id(copy):
    source = RecordSource(copy)
    first, second = (copy / name for name in source.index.shards[:2])
    sound, text = source.index.entry(1), source.index.entry(3)
    flip(first, sound.offset + sound.length - 10)
    flip(first, text.offset + 5)
    flip(second, 0)
    assert check(copy).problems == [
        f"{first.name} record 1 (id row-1): the checksum of a record is wrong",
        f"{first.name} record 3: the checksum of a record is wrong",
        f"{second.name} record 0 (id row-4): the checksum of a record's length is wrong",
    ]
    assert check(copy).records == 9


def test_shards_cut_short_lengthened_lost_or_unknown_are_found(copy):
    names = RecordSource(copy).index.shards
    shards = [copy / name for name in names]
    shards[0].write_bytes(shards[0].read_bytes()[:-3])
    shards[1].write_bytes(shards[1].read_bytes() + b"more")
    shards[2].rename(copy / "other-train.tfrecord-00000-of-00001")
    assert sorted(check(copy).problems) == sorted(
        [
            "other-train.tfrecord-00000-of-00001: a shard that index.npz does not know",
            f"{names[0]} record 3 (id row-3): the file ends inside a record",
            f"{names[1]}: 4 bytes after the last record of the index",
            f"{names[2]}: no such file",
        ]
    )


def test_sound_that_does_not_decode_is_found_behind_a_good_checksum(copy):
    def spoil(number, sample):
        if number == 0:
            sample.audio[0] = sample.audio[0][:-50]
        if number == 1:
            sample.num_samples[0] += 1
        if number == 2:
            sample.audio.pop()
        if number == 3:
            sample.audio[0] = load.encode_flac(load.decode_flac(sample.audio[0]).repeat(2).reshape(-1, 2))
        return sample

    rewrite(copy, spoil)
    found = check(copy).problems
    assert [line.split(" ")[2] for line in found] == ["0", "1", "2", "3"]
    assert "not a FLAC file" in found[0] and "the record says" in found[1]
    assert "1 clips, 2 lengths, 2 transcripts and 2 <|AUDIO|> do not agree" in found[2]
    assert "expected 16000 Hz mono" in found[3]


def test_an_index_that_does_not_fit_is_found(copy):
    index = RecordSource(copy).index
    index.samples[2] += 1
    index.offset[5] += 1
    (copy / "index.npz").write_bytes(index.to_bytes())
    found = check(copy).problems
    assert "record 2 (id row-2): its clips, samples or text are not what the index says" in found[0]
    assert any("record 1: the index says byte" in line for line in found)


def test_counts_that_tfds_would_get_wrong_are_found(copy):
    info = json.loads((copy / "dataset_info.json").read_text())
    info["splits"][0]["shardLengths"] = ["4", "4", "5"]
    (copy / "dataset_info.json").write_text(json.dumps(info))
    assert check(copy).problems == ["dataset_info.json: shards of [4, 4, 5] records, in the index [4, 4, 4]"]
    (copy / "dataset_info.json").unlink()
    assert "dataset_info.json: cannot be read" in check(copy).problems[0]


@pytest.mark.parametrize("file", ["features.json", "summary.json"])
def test_files_beside_the_shards_that_are_lost_damaged_or_say_otherwise_are_found(copy, file):
    content = json.loads((copy / file).read_text())
    if file == "features.json":
        del content["featuresDict"]["features"]["prompt"]
    else:
        content["records"] += 1
    for change, message in [
        (lambda: (copy / file).write_text(json.dumps(content)), ", in the "),
        (lambda: (copy / file).write_text("[]"), "cannot be read"),
        (lambda: (copy / file).unlink(), "cannot be read"),
    ]:
        change()
        (problem,) = check(copy).problems
        assert problem.startswith(f"{file}: ") and message in problem


def test_records_in_a_bucket_are_checked_there(records, copy):
    source, memory = RecordSource(copy), fsspec.filesystem("memory")
    memory.put(str(records), "/bucket/good", recursive=True)
    assert check("memory://bucket/good") == check(records)
    first, second, third = source.index.shards
    flip(copy / first, source.index.entry(1).offset)
    (copy / second).rename(copy / "other.tfrecord")
    (copy / third).write_bytes((copy / third).read_bytes() + b"more")
    (copy / "dataset_info.json").unlink()
    memory.put(str(copy), "/bucket/bad", recursive=True)
    assert [line.split(" (")[0] for line in check("memory://bucket/bad").problems] == [
        "other.tfrecord: a shard that index.npz does not know",
        "dataset_info.json: cannot be read",
        f"{first} record 1: the checksum of a record is wrong",
        f"{second}: no such file",
        f"{third}: 4 bytes after the last record of the index",
    ]


def test_there_must_be_records_to_check(tmp_path):
    with pytest.raises(FileNotFoundError):
        check(tmp_path / "nowhere")
