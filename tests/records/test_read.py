"""Random access to records."""

import concurrent.futures
import pickle
import shutil

import fsspec
import numpy as np
import pytest

from desta_jax.records import read, schema
from desta_jax.records.read import RecordSource


def flip(path, offset):
    data = bytearray(path.read_bytes())
    data[offset] ^= 8
    path.write_bytes(data)


@pytest.fixture
def copy(records, tmp_path):
    return shutil.copytree(records, tmp_path / "copy")


def test_records_stand_in_the_rows_order(records):
    source = RecordSource(records)
    assert len(source) == 12
    assert [schema.decode(source[number]).id for number in range(12)] == [f"row-{number}" for number in range(12)]
    assert source.place(5).endswith("-00001-of-00003 record 1")


def test_the_index_counts_clips_and_samples(records):
    source = RecordSource(records)
    samples = [schema.decode(source[number]) for number in range(12)]
    assert source.clips.dtype == np.int32 and source.clips.tolist() == [len(sample.audio) for sample in samples]
    assert source.clips.tolist() == [1, 1, 2] * 4
    assert source.index.samples.tolist() == [sum(sample.num_samples) for sample in samples]


def test_the_text_is_the_records_without_its_audio(records):
    source = RecordSource(records)
    for number in range(12):
        record, text = source[number], source.text(number)
        assert record.startswith(text) and len(text) < 1000
        assert schema.decode_text(text).response == schema.decode(record).response


def test_numbers_out_of_range_are_index_errors(records):
    source = RecordSource(records)
    for number in (12, -1):
        with pytest.raises(IndexError):
            source[number]
    assert source[np.int64(3)] == source[3]


def test_a_pickled_source_reads_the_same(records):
    source = RecordSource(records)
    source[0]
    again = pickle.loads(pickle.dumps(source))
    assert repr(again) == repr(source) and again[7] == source[7]
    assert len(pickle.dumps(source)) < 1000


def test_threads_share_a_source_with_few_open_files(records, monkeypatch):
    monkeypatch.setattr(read, "OPEN_FILES", 1)
    source = RecordSource(records)
    expected = [RecordSource(records)[number] for number in range(12)]
    numbers = np.random.default_rng(0).integers(0, 12, 2000)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        got = list(pool.map(source.__getitem__, numbers))
    assert all(record == expected[number] for record, number in zip(got, numbers, strict=True))
    assert len(source._files._descriptors) <= 1


def test_remote_records_are_read_through_fsspec(records):
    memory = fsspec.filesystem("memory")
    memory.put(str(records), "/bucket/records", recursive=True)
    local, remote = RecordSource(records), RecordSource("memory://bucket/records")
    assert [remote[number] for number in range(12)] == [local[number] for number in range(12)]
    assert remote.text(4) == local.text(4)


def test_a_stores_own_errors_are_errors_of_reading(records, monkeypatch):
    class ServerError(Exception):
        pass

    def fail(*_, **__):
        raise ServerError("503")

    fsspec.filesystem("memory").put(str(records), "/bucket/failing", recursive=True)
    remote = RecordSource("memory://bucket/failing")
    monkeypatch.setattr(remote._files._filesystem, "cat_file", fail)
    with pytest.raises(OSError, match="ServerError"):
        remote[0]


def test_shards_without_an_index_are_read_through(records, copy):
    (copy / "index.npz").unlink()
    source, expected = RecordSource(copy / "*.tfrecord-*"), RecordSource(records)
    assert [source[number] for number in range(12)] == [expected[number] for number in range(12)]
    assert source.text(3) == expected.text(3)
    assert pickle.loads(pickle.dumps(source)).clips.tolist() == expected.clips.tolist()


def test_damage_is_an_error_that_names_shard_and_byte(copy):
    source = RecordSource(copy)
    entry = source.index.entry(5)
    shard = copy / source.index.shards[1]
    flip(shard, entry.offset + entry.text_length + 100)
    with pytest.raises(OSError, match=rf"{shard.name}, record at byte {entry.offset}: the checksum"):
        source[5]
    source.text(5)  # which is whole
    flip(shard, entry.offset + 20)
    with pytest.raises(OSError, match=rf"{shard.name}, record at byte {entry.offset}: the text"):
        source.text(5)
    assert schema.decode(source[4]).id == "row-4"
    with pytest.raises(OSError, match=shard.name):
        RecordSource(copy / "*.tfrecord-*")


def test_a_shard_cut_short_is_an_error(copy):
    source = RecordSource(copy)
    shard = copy / source.index.shards[2]
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(OSError, match="the file ends inside a record"):
        source[11]


def test_what_is_no_whole_directory_of_records_is_refused(copy, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such directory"):
        RecordSource(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="no file matches"):
        RecordSource(tmp_path / "*.tfrecord")
    with pytest.raises(ValueError, match="no finished directory"):
        RecordSource(tmp_path)
    flip(copy / "index.npz", 300)
    with pytest.raises(ValueError, match=r"index\.npz is damaged"):
        RecordSource(copy)
    (copy / "progress").mkdir()
    with pytest.raises(ValueError, match="unfinished; run the same"):
        RecordSource(copy)


@pytest.mark.parametrize("field", ["compression method", "flag that it is encrypted", "version needed"])
def test_an_index_with_a_turned_bit_is_damaged_wherever_it_is(copy, field):
    """Each of these, in the first entry of the zip's directory, has an exception of its own in zipfile."""
    data = bytearray((copy / "index.npz").read_bytes())
    entry = data.index(b"PK\x01\x02")
    data[entry + {"compression method": 10, "flag that it is encrypted": 8, "version needed": 6}[field]] ^= 0x41
    (copy / "index.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"index\.npz is damaged"):
        RecordSource(copy)


def test_a_directory_may_have_brackets_in_its_name(records, tmp_path):
    odd = shutil.copytree(records, tmp_path / "half [1] of *")
    assert len(RecordSource(odd)) == 12
