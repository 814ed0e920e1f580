"""The adapter out of a run's checkpoints."""

import shutil

import numpy as np
import orbax.checkpoint as ocp
import pytest

from desta_jax.weights.trained import read_trained


def test_a_damaged_checkpoint_is_named_with_those_that_are_there(tmp_path):
    with ocp.CheckpointManager(tmp_path / "checkpoints") as manager:
        for step in (3, 5):
            manager.save(
                step, args=ocp.args.StandardSave({"adapter": {"connector": {"prompts": np.full(4, step, np.float32)}}})
            )
    assert read_trained(str(tmp_path))[0] == 5
    shutil.rmtree(tmp_path / "checkpoints" / "5" / "default" / "d")
    with pytest.raises(ValueError, match=r"checkpoints/5 cannot be read, take another with --step: 3\. "):
        read_trained(str(tmp_path))
    (tmp_path / "checkpoints" / "5" / "default" / "_METADATA").unlink()
    with pytest.raises(ValueError, match="checkpoints/5 cannot be read"):
        read_trained(str(tmp_path))
    step, adapter = read_trained(str(tmp_path), 3)
    assert step == 3 and adapter["connector"]["prompts"].tolist() == [3.0] * 4
