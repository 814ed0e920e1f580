"""Folders that are either whole or not there."""

import pytest

from desta_jax.weights.whole import whole_folder


def write(out, overwrite=False):
    return whole_folder(out, overwrite=overwrite, is_older=lambda folder: (folder / "mark").exists())


def test_what_a_killed_run_left_is_not_taken_along(tmp_path):
    (tmp_path / "out.partial" / "half").mkdir(parents=True)
    (tmp_path / "out.partial" / "file").touch()
    with write(tmp_path / "out") as partial:
        (partial / "mark").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mark"]
    assert not (tmp_path / "out.partial").exists()


def test_two_at_once_are_told_apart(tmp_path):
    with write(tmp_path / "out") as partial:
        (partial / "mark").touch()
        with pytest.raises(ValueError, match="another process is writing .*out.partial"), write(tmp_path / "out"):
            pass
        assert (partial / "mark").exists()
    assert (tmp_path / "out" / "mark").exists()
    with write(tmp_path / "out", overwrite=True) as partial:
        (partial / "newer").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["newer"]


def test_a_link_to_a_folder_elsewhere_stays_one(tmp_path):
    (tmp_path / "disk" / "models").mkdir(parents=True)
    (tmp_path / "out").symlink_to(tmp_path / "disk" / "models")
    for _ in range(2):
        with write(tmp_path / "out", overwrite=True) as partial:
            (partial / "mark").touch()
    assert (tmp_path / "out").is_symlink() and (tmp_path / "disk" / "models" / "mark").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "out"]


def test_what_lies_where_an_older_folder_is_put_aside_is_kept(tmp_path):
    (tmp_path / "out.replaced" / "thesis").mkdir(parents=True)
    with write(tmp_path / "out") as partial:
        (partial / "mark").touch()
    with pytest.raises(ValueError, match="out.replaced, where .* is put aside, holds something else"):
        write(tmp_path / "out", overwrite=True).__enter__()
    assert (tmp_path / "out.replaced" / "thesis").exists() and (tmp_path / "out" / "mark").exists()
