"""The same samples in the same order, however they are read; epochs are permutations; damage costs one sample."""

import itertools
import os
import pathlib
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from desta_jax.batch import Batch
from desta_jax.config import make_config
from desta_jax.inputs.pipeline import evaluation_inputs, training_inputs
from desta_jax.records.read import RecordSource

SIZE = 5  # soft tokens a clip, as in the prompts fixture
ROWS = 4
CLIPS = {3: 2, 7: 0, 11: 3, 12: 2, 20: 0, 21: 2, 30: 4}  # of the samples that have not one


@pytest.fixture(scope="module")
def samples(make_sample):
    return [
        make_sample(
            number, clips=CLIPS.get(number, 1), words=number % 7, response=f"Number {number}. " * (1 + number % 3)
        )
        for number in range(37)
    ]


@pytest.fixture(scope="module")
def records(tmp_path_factory, samples, write_records):
    return write_records(tmp_path_factory.mktemp("records") / "all", samples)


def config_for(records, **changes):
    changes = {f"data.{key}": value for key, value in changes.items()}
    short = {"data.audio_seconds": 1, "adapter.prompt_size": SIZE, "data.threads": 2, "seed": 1}
    return make_config({"data.train": (records,), **short, **changes})


@pytest.fixture
def inputs_for(records, prompts):
    def make(where=None, rows=ROWS, **changes):
        return training_inputs(config_for(where or records, **changes), prompts, rows_per_step=rows)

    return make


def take(inputs, steps, start=0, local_rows=None):
    batches = inputs.batches(start, local_rows)
    taken = list(itertools.islice(batches, steps))
    batches.close()
    return taken


def assert_equal(got: Batch, expected: Batch):
    for name, array in vars(expected).items():
        np.testing.assert_array_equal(getattr(got, name), array, err_msg=name)


def rows_of(batches, local_rows):
    """{(step, row): the arrays of that row}"""
    return {
        (step, row): {name: array[index] for name, array in vars(batch).items()}
        for step, batch in enumerate(batches)
        for index, row in enumerate(local_rows)
    }


PACKING = pytest.mark.parametrize("pack", [False, True], ids=["unpacked", "packed"])


@PACKING
def test_a_row_holds_its_samples_and_padding(inputs_for, samples, prompts, pack):
    """Against a plain reading of the documentation of Batch, for the samples that the ids name."""
    inputs = inputs_for(pack=pack)
    numbers = iter([int(name[1:]) for name in inputs.sample_ids(0)])
    (batch,) = take(inputs, 1)
    assert batch.tokens.shape == (ROWS, inputs.shapes.tokens)
    assert batch.audio.shape == (ROWS, inputs.shapes.clips, 16_000) and batch.audio.dtype == np.int16
    for row in range(ROWS):
        token, clip, labels = 0, 0, []
        for segment in range(1, batch.segments[row].max() + 1):
            sample = samples[next(numbers)]
            example = prompts.training(sample.messages, sample.response, 300)
            here = slice(token, token + len(example.tokens))
            assert batch.tokens[row, here].tolist() == example.tokens.tolist()
            assert (batch.segments[row, here] == segment).all()
            assert batch.positions[row, here].tolist() == list(range(len(example.tokens)))
            for slot, expected in zip(batch.audio_slots[row, here], example.audio_slots):
                assert slot == (expected + clip * SIZE if expected >= 0 else -1)
            labels += [(token + example.answer - 1 + i, label) for i, label in enumerate(example.labels.tolist())]
            for own in range(example.clips):
                wave = batch.audio[row, clip + own]
                assert (wave[:800] == int(sample.id[1:]) + 1 + 1000 * own).all() and not wave[800:].any()
            token, clip = here.stop, clip + example.clips
        assert not batch.segments[row, token:].any() and (batch.audio_slots[row, token:] == -1).all()
        assert not batch.audio[row, clip:].any()
        assert list(zip(batch.label_positions[row], batch.labels[row]))[: len(labels)] == labels
        assert (batch.labels[row, len(labels) :] == -1).all() and not batch.label_positions[row, len(labels) :].any()
    assert not list(numbers)


@PACKING
def test_every_epoch_has_each_sample_once_in_another_order(inputs_for, samples, pack):
    inputs = inputs_for(pack=pack, rows=1)
    epochs = [
        [name for row in range(epoch * inputs.rows_per_epoch, (epoch + 1) * inputs.rows_per_epoch)
         for name in inputs.sample_ids(row)]
        for epoch in range(3)
    ]  # fmt: skip
    for epoch in epochs:
        assert sorted(epoch) == sorted(sample.id for sample in samples)
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]
    assert inputs.samples_per_epoch == len(samples)


def test_packing_takes_fewer_rows_with_the_same_company_each_epoch(inputs_for):
    inputs = inputs_for(pack=True, rows=1)
    assert inputs.rows_per_epoch < 15
    company = [
        {frozenset(inputs.sample_ids(epoch * inputs.rows_per_epoch + row)) for row in range(inputs.rows_per_epoch)}
        for epoch in range(2)
    ]
    assert company[0] == company[1]


def test_the_order_follows_the_seed(records, prompts):
    orders = []
    for seed in (1, 1, 2):
        config = make_config({"data.train": (records,), "seed": seed, "adapter.prompt_size": SIZE})
        inputs = training_inputs(config, prompts, rows_per_step=ROWS)
        orders.append([inputs.sample_ids(step) for step in range(9)])
    assert orders[0] == orders[1] != orders[2]


def test_without_shuffling_the_order_is_the_records(inputs_for, samples):
    inputs = inputs_for(shuffle=False)
    names = [name for step in range(11) for name in inputs.sample_ids(step)]
    assert names[:37] == [sample.id for sample in samples] and names[37:] == names[:7]


@PACKING
@pytest.mark.parametrize("shares", [[[0, 1], [2, 3]], [[0, 2], [1, 3]], [[0], [1], [2], [3]]])
def test_processes_read_the_same_global_batches(inputs_for, pack, shares):
    expected = rows_of(take(inputs_for(pack=pack), 5), range(ROWS))
    got = {}
    for share in shares:
        got |= rows_of(take(inputs_for(pack=pack), 5, local_rows=share), share)
    assert got.keys() == expected.keys()
    for place in expected:
        for name, array in expected[place].items():
            np.testing.assert_array_equal(got[place][name], array)


@PACKING
def test_a_run_goes_on_from_any_step(inputs_for, pack):
    steps = 12  # more than an epoch of either
    whole = take(inputs_for(pack=pack), steps)
    for start in range(1, steps):
        assert_equal(take(inputs_for(pack=pack), 1, start)[0], whole[start])


def test_nothing_before_the_first_step_is_read(inputs_for, tmp_path, samples, write_records, monkeypatch):
    folder = write_records(tmp_path / "own", samples)  # other tests' threads may still be reading the shared ones
    inputs = inputs_for(folder, threads=0)  # with threads, batches are also made ahead
    read, original = [], RecordSource.__getitem__

    def noting(source, number):
        if folder in repr(source):
            read.append(f"s{number}")
        return original(source, number)

    monkeypatch.setattr(RecordSource, "__getitem__", noting)
    take(inputs, 1, start=1_000_000)
    assert read == inputs.sample_ids(1_000_000)


def test_threads_do_not_change_the_batches(inputs_for):
    expected = take(inputs_for(pack=True, threads=0), 6)
    for got, batch in zip(take(inputs_for(pack=True, threads=5, prefetch=7), 6), expected, strict=True):
        assert_equal(got, batch)


def test_workers_do_not_change_the_batches(inputs_for):
    expected = take(inputs_for(pack=True), 7, start=2)
    for got, batch in zip(take(inputs_for(pack=True, workers=2), 7, start=2), expected, strict=True):
        assert_equal(got, batch)


@pytest.fixture(scope="module")
def two_datasets(tmp_path_factory, make_sample, write_records):
    folder = tmp_path_factory.mktemp("two")
    large = [make_sample(number) for number in range(20)]
    small = [make_sample(number) for number in range(100, 108)]
    return write_records(folder / "large", large), write_records(folder / "small", small)


def test_datasets_without_weights_are_one(prompts, two_datasets):
    inputs = training_inputs(config_for(two_datasets[0], train=two_datasets), prompts, rows_per_step=7)
    names = [name for step in range(4) for name in inputs.sample_ids(step)]
    assert len(set(names)) == len(names) == inputs.samples_per_epoch == 28


@PACKING
def test_datasets_are_mixed_by_weight(prompts, two_datasets, pack):
    config = config_for(two_datasets[0], train=two_datasets, weights=(1, 3), pack=pack)
    inputs = training_inputs(config, prompts, rows_per_step=1)
    rows = [inputs.sample_ids(step) for step in range(80)]
    small = [row for row in rows if int(row[0][1:]) >= 100]
    assert len(small) == 60
    once = len(small) * 8 // sum(map(len, small))  # rows of an epoch of the small one
    for epoch in range(2):  # each dataset has its own epochs
        names = [name for row in small[epoch * once : (epoch + 1) * once] for name in row]
        assert sorted(names) == [f"s{number}" for number in range(100, 108)]
    again = training_inputs(config, prompts, rows_per_step=1)
    assert [again.sample_ids(step) for step in range(80)] == rows


def test_an_evaluation_has_every_sample_once_and_empty_rows_at_its_end(records, samples, prompts):
    config = config_for(records, validation=(records,), validation_max_length=60, pack=True)
    inputs = evaluation_inputs(config, prompts, rows_per_step=ROWS)
    usable = [sample for sample in samples if hasattr(prompts.training(sample.messages, sample.response, 60), "tokens")]
    batches = take(inputs, None)
    assert len(batches) == inputs.steps_per_epoch == -(-len(usable) // ROWS)
    names = [name for step in range(len(batches)) for name in inputs.sample_ids(step)]
    assert names == [sample.id for sample in usable]
    assert 0 < inputs.samples_per_epoch < len(samples) == inputs.samples_per_epoch + sum(inputs.rejected.values())
    lengths = np.concatenate([(batch.segments > 0).sum(1) for batch in batches])
    expected = [len(prompts.training(sample.messages, sample.response, 60).tokens) for sample in usable]
    assert lengths.tolist() == expected + [0] * (len(batches) * ROWS - len(usable))
    assert (batches[-1].labels[len(usable) % ROWS or ROWS :] == -1).all()


def test_clips_are_cut_at_the_window(tmp_path, make_sample, write_records, prompts):
    folder = write_records(tmp_path / "long", [make_sample(0, seconds=1.5)], shards=1)
    inputs = training_inputs(config_for(folder), prompts, rows_per_step=1)
    (batch,) = take(inputs, 1)
    assert batch.audio.shape == (1, 1, 16_000) and (batch.audio == 1).all()


@pytest.fixture
def damaged(tmp_path, samples, write_records):
    """Records of which one has a flipped bit in its audio; and that one's id."""
    folder = pathlib.Path(write_records(tmp_path / "damaged", samples[:8], shards=1))
    source = RecordSource(folder)
    at = int(source.index.offset[5] + source.index.length[5]) - 3
    (shard,) = folder.glob("*.tfrecord-*")
    content = bytearray(shard.read_bytes())
    content[at] ^= 4
    shard.write_bytes(content)
    return str(folder), samples[5].id


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_costs_its_row_one_sample(damaged, inputs_for, caplog, workers):
    folder, lost = damaged
    inputs = inputs_for(folder, workers=workers, rows=8)
    (batch, second) = take(inputs, 2)
    row = inputs.sample_ids(0).index(lost)
    empty = [row for row in range(8) if not batch.segments[row].any()]
    assert empty == [row] and (batch.labels[row] == -1).all() and not batch.audio[row].any()
    assert inputs.unreadable == 2
    ((place, error),) = inputs.faults.items()
    assert place == f"{folder}: test-train.tfrecord-00000-of-00001 record 5" and "checksum" in error
    assert sum("cannot be used" in record.message for record in caplog.records) == 1


def test_records_that_are_gone_end_the_run(tmp_path, samples, write_records, inputs_for):
    folder = pathlib.Path(write_records(tmp_path / "gone", samples, shards=1))
    inputs = inputs_for(str(folder))
    next(folder.glob("*.tfrecord-*")).write_bytes(b"")
    with pytest.raises(OSError, match=r"100 of 100 samples could not be read; .*the file ends inside a record"):
        take(inputs, 100)


def test_in_a_packed_row_the_other_samples_stay(damaged, inputs_for):
    folder, lost = damaged
    inputs = inputs_for(folder, pack=True, rows=1)
    for step, batch in enumerate(take(inputs, inputs.rows_per_epoch)):
        names = inputs.sample_ids(step)
        assert batch.segments.max() == len(names) - (lost in names)
        assert set(np.unique(batch.segments)) - {0} == set(range(1, batch.segments.max() + 1))


def test_audio_that_is_no_flac_costs_one_sample(tmp_path, make_sample, write_records, inputs_for):
    samples = [make_sample(0), make_sample(1, audio=[b"RIFF"]), make_sample(2)]
    inputs = inputs_for(write_records(tmp_path / "bad", samples), rows=3)
    (batch,) = take(inputs, 1)
    assert (batch.segments.max(1) > 0).sum() == 2
    assert "not a FLAC file" in next(iter(inputs.faults.values()))


def test_rejected_samples_are_counted_and_left_out(tmp_path, make_sample, write_records, inputs_for):
    wrong = make_sample(1, messages=[{"role": "usr", "content": "x"}])
    long, many = make_sample(2, clips=2, words=99), make_sample(3, clips=5, words=0, response="Yes.")
    samples = [make_sample(0), wrong, long, many, make_sample(4)]
    folder = write_records(tmp_path / "some", samples)
    inputs = inputs_for(folder, max_length=115, pack=True, rows=1)
    assert inputs.samples_per_epoch == 2
    assert inputs.rejected == {
        "no prompt can be made of the messages": 1,
        "the cut to max_length falls inside the positions of a clip": 1,
        "more clips than data.clips_per_row": 1,
    }
    assert inputs_for(folder, max_length=115, rows=1).samples_per_epoch == 3


def test_records_without_a_usable_sample_are_an_error(tmp_path, make_sample, write_records, inputs_for):
    folder = write_records(tmp_path / "none", [make_sample(0, words=99)], shards=1)
    with pytest.raises(ValueError, match="no sample can be used .*falls inside the positions of a clip: 1"):
        inputs_for(folder, max_length=50)


def test_missing_records_are_an_error(tmp_path, prompts):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        training_inputs(config_for(str(tmp_path / "nowhere")), prompts, rows_per_step=1)
    with pytest.raises(ValueError, match="data.train: name at least one folder"):
        training_inputs(make_config({"adapter.prompt_size": SIZE}), prompts, rows_per_step=1)


def test_the_fingerprint_tells_plans_apart(inputs_for):
    same = {inputs_for(pack=True).fingerprint for _ in range(2)}
    assert len(same) == 1
    assert inputs_for(pack=False).fingerprint not in same


READER = """
    import pickle, sys

    def main():
        from desta_jax.config import make_config
        from desta_jax.inputs.pipeline import training_inputs

        prompts, changes = pickle.load(open(sys.argv[1], "rb"))
        batches = training_inputs(make_config(changes), prompts, rows_per_step=2).batches(0)
        next(batches)
        print("reading", flush=True)
        sys.stdin.readline()
        for _ in zip(range(50), batches):
            pass
        batches.close()
        print("read", flush=True)

    if __name__ == "__main__":
        main()
"""


@pytest.fixture
def reader(tmp_path, records, prompts):
    """A process that reads with two workers, and the living processes of its session."""
    script, settings = tmp_path / "reader.py", tmp_path / "settings.pickle"
    script.write_text(textwrap.dedent(READER))
    changes = {"data.train": (records,), "data.workers": 2, "data.audio_seconds": 1, "adapter.prompt_size": SIZE}
    settings.write_bytes(pickle.dumps((prompts, changes)))
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[2])}
    command = [sys.executable, script, settings]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, env=environment, start_new_session=True) as reader:
        assert reader.stdout.readline() == b"reading\n"
        assert len(_session(reader.pid)) >= 3
        yield reader
        deadline = time.monotonic() + 20
        while (left := _session(reader.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in left:
            os.kill(process, signal.SIGKILL)
        assert not left


def test_workers_die_with_a_killed_parent(reader):
    reader.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_read_on_when_a_signal_comes_to_all_and_end_when_they_are_stopped(reader, number):
    for process in _session(reader.pid):
        if process != reader.pid:
            os.kill(process, number)
    assert reader.communicate(b"\n", timeout=60)[0] == b"read\n"
    assert reader.returncode == 0


def _session(leader):
    """The living processes of a session."""
    found = []
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(session) == leader and state != "Z":
            found.append(int(folder.name))
    return found
