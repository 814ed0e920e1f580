"""Packages for the listening corpus: the pinned one is unpacked, any other is refused."""

import hashlib
import io
import pathlib
import sys
import tarfile

import pytest

sys.path.append(str(pathlib.Path(__file__).parents[2] / "data" / "listening" / "corpus"))
import packages


def debian(files):
    """A Debian package with these files."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    package = b"!<arch>\n"
    for name, content in (("debian-binary", b"2.0\n"), ("control.tar.xz", b"odd"), ("data.tar.xz", data.getvalue())):
        header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode()
        package += header + content + b"\n" * (len(content) % 2)
    return package


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A mirror with one package."""
    content = debian({"usr/share/sounds/a.wav": b"a sound", "usr/bin/program": b"a program"})
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "sounds.deb").write_bytes(content)
    monkeypatch.setattr(packages, "DEBIAN", (tmp_path / "mirror").as_uri())
    monkeypatch.setitem(packages.PACKAGES, "sounds", ("sounds.deb", hashlib.sha256(content).hexdigest()))
    return tmp_path / "mirror"


def test_a_package_s_sounds_are_unpacked_once(mirror, tmp_path):
    folder = packages.folder("sounds", tmp_path / "cache")
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert files == ["usr/share/sounds/a.wav"]
    (mirror / "sounds.deb").unlink()
    assert packages.folder("sounds", tmp_path / "cache") == folder


def test_a_damaged_package_is_refused(mirror, tmp_path):
    content = (mirror / "sounds.deb").read_bytes()
    (mirror / "sounds.deb").write_bytes(content[:-1] + b"x")
    with pytest.raises(ValueError, match="refused"):
        packages.folder("sounds", tmp_path / "cache")
    assert not (tmp_path / "cache" / "sounds").exists()


def test_a_package_that_is_gone_is_told_of(mirror, tmp_path):
    (mirror / "sounds.deb").unlink()
    with pytest.raises(OSError, match="DEBIAN_MIRROR"):
        packages.folder("sounds", tmp_path / "cache")
