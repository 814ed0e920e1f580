"""Every sample's length is measured once, kept beside the records, and never taken for another's."""

import numpy as np
import pytest

from desta_jax.inputs import lengths
from desta_jax.inputs.lengths import INVALID, MEASURED, UNREADABLE, lengths_of, measure
from desta_jax.inputs.prompt import Example, PromptBuilder
from desta_jax.records.read import RecordSource


@pytest.fixture(scope="module")
def samples(make_sample):
    good = [make_sample(number, clips=number % 4, words=3 * number, response="Yes. " * number) for number in range(20)]
    no_prompt = make_sample(20, messages=[{"role": "user"}])
    other_clips = make_sample(21, audio=[], num_samples=[])
    return [*good, no_prompt, other_clips]


@pytest.fixture
def folder(tmp_path, samples, write_records):
    return write_records(tmp_path / "records", samples)


def assert_equal(got, expected):
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


def kept(folder):
    return sorted(folder.glob("lengths-*.npz"))


def test_samples_are_measured_as_they_are_trained_on(folder, samples, prompts):
    found = measure(RecordSource(folder), prompts)
    assert found.state.tolist() == [MEASURED] * 20 + [INVALID] * 2
    for max_length in (40, 80, 150, 300):
        usable, rejected = found.usable(max_length)
        for number, sample in enumerate(samples[:20]):
            example = prompts.training(sample.messages, sample.response, max_length)
            assert usable[number] == isinstance(example, Example)
            if usable[number]:
                assert found.cut(max_length)[number] == len(example.tokens)
                assert found.labels(max_length)[number] == len(example.labels)
                assert found.clips[number] == example.clips
        assert not usable[20:].any()
        assert sum(rejected.values()) == (~usable).sum()


def test_rows_with_too_many_clips_are_not_usable(folder, prompts):
    found = measure(RecordSource(folder), prompts)
    usable, rejected = found.usable(10_000, most_clips=2)
    assert usable.tolist() == [number % 4 <= 2 and number < 20 for number in range(22)]
    assert rejected == {lengths.INVALID_MESSAGES: 2, lengths.TOO_MANY_CLIPS: 5}


def test_processes_measure_the_same(folder, prompts, monkeypatch):
    monkeypatch.setattr(lengths, "CHUNK", 7)
    source = RecordSource(folder)
    assert_equal(measure(source, prompts, processes=2), measure(source, prompts, processes=1))


def test_lengths_are_kept_beside_the_records(folder, prompts, tmp_path, monkeypatch):
    source = RecordSource(folder)
    first = lengths_of(folder, source, prompts)
    (file,) = kept(tmp_path / "records")
    assert not list((tmp_path / "records").glob(".*")), "no half-written file is left"
    monkeypatch.setattr(lengths, "measure", lambda *_: pytest.fail("measured again"))
    assert_equal(lengths_of(folder, source, prompts), first)
    assert file.exists()


def test_another_tokenizer_prompt_or_record_has_lengths_of_its_own(
    folder, prompts, tokenizers, tmp_path, make_sample, write_records
):
    llama, placeholder = tokenizers["llama"]
    source = RecordSource(folder)
    for builder in (prompts, PromptBuilder(llama, 6, placeholder), PromptBuilder(*_with_size(tokenizers["chatml"]))):
        lengths_of(folder, source, builder)
    assert len(kept(tmp_path / "records")) == 3
    other = RecordSource(write_records(tmp_path / "other", [make_sample(0, response="No.")]))
    changed = RecordSource(write_records(tmp_path / "changed", [make_sample(0, response="Ja.")]))
    names = [lengths._fingerprint(records, prompts) for records in (source, other, changed)]
    assert len(set(names)) == 3


def _with_size(pair):
    tokenizer, placeholder = pair
    return tokenizer, 5, placeholder


def test_records_that_cannot_be_written_keep_them_elsewhere(folder, prompts, tmp_path, monkeypatch):
    monkeypatch.setattr(lengths, "_save", _refusing(tmp_path / "records", lengths._save))
    source = RecordSource(folder)
    first = lengths_of(folder, source, prompts, cache=str(tmp_path / "work"))
    assert len(kept(tmp_path / "work")) == 1 and not kept(tmp_path / "records")
    monkeypatch.setattr(lengths, "measure", lambda *_: pytest.fail("measured again"))
    assert_equal(lengths_of(folder, source, prompts, cache=str(tmp_path / "work")), first)


def _refusing(folder, original):
    """As a read-only file system; permissions do not stop a test that runs as root."""
    return lambda file, content: False if str(file).startswith(str(folder)) else original(file, content)


def test_a_place_that_cannot_be_written_is_no_error(folder, prompts, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert not lengths._save(lengths.epath.Path(tmp_path / "file") / "lengths.npz", lengths._empty())
    pattern = f"{folder}/*.tfrecord-*"
    assert len(lengths_of(pattern, RecordSource(pattern), prompts)) == 22
    assert any("can be kept nowhere" in record.message for record in caplog.records)


def test_a_damaged_file_is_made_again(folder, prompts, tmp_path):
    source = RecordSource(folder)
    first = lengths_of(folder, source, prompts)
    (file,) = kept(tmp_path / "records")
    content = file.read_bytes()
    for damage in (content[: len(content) // 2], b"", content[:200] + b"\xff" + content[201:]):
        file.write_bytes(damage)
        assert_equal(lengths_of(folder, source, prompts), first)
        assert file.read_bytes() == content


def test_unreadable_text_is_counted_and_kept_for_the_run_alone(folder, prompts, tmp_path, caplog):
    source = RecordSource(folder)
    shard = next((tmp_path / "records").glob("*-00000-of-*"))
    whole = shard.read_bytes()
    content = bytearray(whole)
    content[int(source.index.offset[2]) + 40] ^= 1
    shard.write_bytes(content)
    found = lengths_of(folder, RecordSource(folder), prompts)
    assert found.state[2] == UNREADABLE and found.usable(300)[1][lengths.UNREADABLE_RECORD] == 1
    assert_equal(lengths_of(folder, RecordSource(folder), prompts, cache=str(tmp_path / "work")), found)
    shard.write_bytes(whole)  # repaired: this run's samples stay as they are, another has all of them
    assert_equal(lengths_of(folder, RecordSource(folder), prompts, cache=str(tmp_path / "work")), found)
    assert not kept(tmp_path / "records")
    assert lengths_of(folder, RecordSource(folder), prompts).state[2] == MEASURED
    assert any("record 2: " in record.message and "damaged" in record.message for record in caplog.records)


def test_what_is_out_of_reach_for_a_moment_is_read_again(folder, prompts, tmp_path, monkeypatch):
    source, failed, read = RecordSource(folder), set(), RecordSource.text

    def once_out_of_reach(source, number):
        if number in (3, 7) and number not in failed:
            failed.add(number)
            raise OSError("the bucket does not answer")
        return read(source, number)

    monkeypatch.setattr(RecordSource, "text", once_out_of_reach)
    found = lengths_of(folder, source, prompts)
    assert failed == {3, 7} and kept(tmp_path / "records")
    monkeypatch.undo()
    assert_equal(found, measure(source, prompts))
