"""Files that others read and write meanwhile."""

import pathlib

import pytest

from desta_jax.files import lock, write_whole


@pytest.mark.parametrize("content", ["mine: ä", b"\xff\x00"])
def test_two_processes_may_write_the_same_file(tmp_path, monkeypatch, content):
    """The other one does so when this one has written all but the name."""
    rename = pathlib.Path.replace

    def late(partial, path):
        monkeypatch.undo()
        write_whole(path, "theirs")
        rename(partial, path)

    monkeypatch.setattr(pathlib.Path, "replace", late)
    write_whole(tmp_path / "new" / "file", content)
    data = content if isinstance(content, bytes) else content.encode()
    assert (tmp_path / "new" / "file").read_bytes() == data
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_lock_is_one_opening_of_a_file_at_a_time(tmp_path):
    with open(tmp_path / "lock", "w") as first, open(tmp_path / "lock", "w") as second:
        lock(first, "taken")
        with pytest.raises(ValueError, match="^taken$"):
            lock(second, "taken")
        first.close()
        lock(second.fileno(), "taken")


def test_a_write_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(pathlib.Path, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", "mine")
    assert not list(tmp_path.iterdir())
