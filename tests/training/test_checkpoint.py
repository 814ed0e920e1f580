"""Checkpoints on disk: which are kept, and what comes back."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.logging import get_absl_logger
from jax.experimental import multihost_utils

from desta_jax.config import make_config
from desta_jax.training.checkpoint import Checkpoints, changed_keys
from desta_jax.training.optimizer import make_optimizer
from desta_jax.training.step import init_state
from desta_jax.weights.trained import read_trained


def state_of(value, width=3):
    adapter = {"connector": {"proj": {"kernel": jnp.full((2, width), value)}}}
    return init_state(adapter, make_optimizer(make_config({}), 10))


def placed(state):
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), state)


@pytest.fixture
def saved(tmp_path):
    """Five steps, of which the second was the best; the newest two are to be kept."""
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step, loss in enumerate([3.0, 1.0, 2.0, 5.0, None], 1):
        checkpoints.save(step, state_of(float(step)), loss)
    checkpoints.close()
    return tmp_path


def test_the_newest_and_the_best_are_kept(saved):
    assert sorted(int(path.name) for path in (saved / "checkpoints").iterdir()) == [2, 4, 5]


def test_a_step_without_validation_is_saved_without_a_warning(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(get_absl_logger(), "propagate", True)
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    checkpoints.save(1, state_of(1.0))
    checkpoints.close()
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_best_is_kept_by_the_processes_that_come_after(saved):
    for step, loss in ((6, 4.0), (7, None), (8, 3.0)):
        checkpoints = Checkpoints(str(saved), keep=2)
        checkpoints.save(step, state_of(float(step)), loss)
        checkpoints.close()
    assert sorted(int(path.name) for path in (saved / "checkpoints").iterdir()) == [2, 7, 8]


def test_each_comes_back(saved):
    for step, asked in ((5, None), (2, 2)):
        found, adapter = read_trained(str(saved), asked)
        assert found == step
        np.testing.assert_array_equal(adapter["connector"]["proj"]["kernel"], np.full((2, 3), step))


def test_a_restored_state_has_no_buffer_twice(saved):
    """Its buffers are donated to the step: one that stands in two places would be freed twice."""
    checkpoints = Checkpoints(str(saved), keep=2)
    state = checkpoints.restore(5, placed(state_of(0.0)))
    checkpoints.close()
    places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(state)]
    assert len(set(places)) == len(places)


def test_another_adapter_is_named(saved):
    checkpoints = Checkpoints(str(saved), keep=2)
    with pytest.raises(ValueError, match=r"another adapter(.*\n)*.*adapter\.connector\.proj\.kernel"):
        checkpoints.restore(5, placed(state_of(0.0, width=4)))
    checkpoints.close()


@pytest.fixture
def two(tmp_path):
    """Two steps, both kept."""
    checkpoints = Checkpoints(str(tmp_path), keep=2)
    for step in (1, 2):
        checkpoints.save(step, state_of(float(step)))
    checkpoints.close()
    return tmp_path


def restored_step(workdir):
    checkpoints = Checkpoints(str(workdir), keep=1)
    state = checkpoints.restore(checkpoints.newest(), placed(state_of(0.0)))
    checkpoints.close()
    return int(state.adapter["connector"]["proj"]["kernel"][0, 0])


def test_one_that_was_not_finished_is_none(two):
    """What a kill leaves while a checkpoint is written: the one before it is still there, though one is to be kept."""
    (two / "checkpoints" / "2").rename(two / "checkpoints" / "2.orbax-checkpoint-tmp")
    assert restored_step(two) == 1
    checkpoints = Checkpoints(str(two), keep=1)
    checkpoints.save(2, state_of(2.0))
    checkpoints.close()
    assert restored_step(two) == 2


def test_orbax_does_not_ask_whether_to_stop(tmp_path, monkeypatch):
    """It would count among the times that all processes ask, in one process more than in the others."""

    def ask(step):
        raise AssertionError

    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", ask)
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, state_of(1.0))
    checkpoints.close()
    assert restored_step(tmp_path) == 1


def test_the_only_good_one_outlives_a_save_that_fails(tmp_path, monkeypatch):
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, state_of(1.0))
    checkpoints.wait()

    def disk_is_full():
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints._manager, "_wait_for_checkpointers", disk_is_full)
    checkpoints.save(2, state_of(2.0))
    with pytest.raises(OSError, match="no space left"):
        checkpoints.wait()
    assert read_trained(str(tmp_path), 1)[1]["connector"]["proj"]["kernel"][0, 0] == 1


def damage_data(item):
    for file in item.rglob("d/*"):
        file.write_bytes(bytes(file.stat().st_size))


@pytest.mark.parametrize("damage", [damage_data, lambda item: (item / "_METADATA").unlink()], ids=["data", "metadata"])
def test_a_damaged_one_is_named_and_the_one_before_it_helps(two, damage):
    newest = two / "checkpoints" / "2"
    damage(newest / "default")
    with pytest.raises(ValueError, match=r"checkpoints/2 cannot be read.*delete it, and the run goes on from step 1"):
        restored_step(two)
    assert (two / "checkpoints" / "1").exists()
    shutil.rmtree(newest)
    assert restored_step(two) == 1


def test_changed_keys_are_those_that_differ(tmp_path):
    assert changed_keys(str(tmp_path), {"a": 1}) == {}
    (tmp_path / "config.json").write_text('{"a": {"b": 1, "c": [1, 2]}}')
    assert changed_keys(str(tmp_path), {"a": {"b": 2, "c": (1, 2)}}) == {"a.b": (1, 2)}


def test_a_key_that_is_younger_than_the_run_had_its_default(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 42}')
    assert changed_keys(str(tmp_path), {"seed": 42, "adapter": {"dropout": 0.1}}) == {}
    assert changed_keys(str(tmp_path), {"seed": 42, "adapter": {"dropout": 0.2}}) == {"adapter.dropout": (0.1, 0.2)}
