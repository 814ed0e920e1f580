"""Checkpoints on disk: which are kept, and what comes back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from desta_jax.config import make_config
from desta_jax.training.checkpoint import Checkpoints, changed_keys, write_config
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


def test_changed_keys_are_those_that_differ(tmp_path):
    assert changed_keys(str(tmp_path), {"a": 1}) == {}
    write_config(str(tmp_path), '{"a": {"b": 1, "c": [1, 2]}}')
    assert changed_keys(str(tmp_path), {"a": {"b": 2, "c": (1, 2)}}) == {"a.b": (1, 2)}
