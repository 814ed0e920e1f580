"""Packages that carry recordings: downloaded by pinned name, version and checksum, and unpacked without root."""

import hashlib
import io
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator

DEBIAN = os.environ.get("DEBIAN_MIRROR", "https://deb.debian.org/debian")
KEPT = (".wav", ".ogg", ".oga", ".rcc", ".gz", ".sf2", ".sf3", "/copyright")
BLOCK = 1 << 20

# name: its file in the mirror, and the sha256 of it
PACKAGES = {
    "ktuberling-data": (
        "pool/main/k/ktuberling/ktuberling-data_22.12.3-1_all.deb",
        "fba44c875bfa31ea488dadd9263e87a4dcaea0bd47d28817f6c0dc6d2af970ed",
    ),
    "timgm6mb-soundfont": (
        "pool/main/t/timgm6mb-soundfont/timgm6mb-soundfont_1.3-5_all.deb",
        "034abdfb296d9353433513dad5dbdcab46425ee6008fc02fe7039b46e75edc54",
    ),
    "asterisk-core-sounds-en": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-en_1.6.1-1_all.deb",
        "973e797d28e37fa6ca3c0a9d6fa717e77cf1268ae916bf09fd3503113cdffa50",
    ),
    "asterisk-core-sounds-es": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-es_1.6.1-1_all.deb",
        "9afdab7f559f036649fb406e625899306ca1004df8ebe39c30bfbd5912d66f74",
    ),
    "asterisk-core-sounds-fr": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-fr_1.6.1-1_all.deb",
        "04c82c78c570c43a7136cbc5e2488d0c470b775468dff9fbce4a131b18cf1056",
    ),
    "asterisk-core-sounds-it": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-it_1.6.1-1_all.deb",
        "3884d9457e12f21caa018c18f0d587df5d53ebea14b673d8453a134c5941ab3b",
    ),
    "asterisk-core-sounds-ru": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-ru_1.6.1-1_all.deb",
        "28a61616bb0cd3345a7ea532dec4df9f071e5d0fa9f8c1a563ea9669002f39ab",
    ),
    "asterisk-core-sounds-en-wav": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-en-wav_1.6.1-1_all.deb",
        "2be3ea287d83299d143815fa804f11179a75b7affd4a758b98b55f5afc18a35d",
    ),
    "asterisk-core-sounds-es-wav": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-es-wav_1.6.1-1_all.deb",
        "9283a09a6d56fccdcc2bcfe86c48f0f844289cfbd46a3184d8785a6f7f569903",
    ),
    "asterisk-core-sounds-fr-wav": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-fr-wav_1.6.1-1_all.deb",
        "8d4e1bc32ed5ba7fbda40841ca1825ed20cc6232724a473c90f8bb0e53e6073e",
    ),
    "asterisk-core-sounds-it-wav": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-it-wav_1.6.1-1_all.deb",
        "5a26638089e134b8ac39363fe249c5c93c50cd8bfdc9b2499ae61ec4a35e2fcb",
    ),
    "asterisk-core-sounds-ru-wav": (
        "pool/main/a/asterisk-core-sounds/asterisk-core-sounds-ru-wav_1.6.1-1_all.deb",
        "ccbfaebfa450b7a9ddf644ae0f3d1e9017d5df7c0aebe816e946345589d38201",
    ),
    "asterisk-prompt-it-menardi-wav": (
        "pool/main/a/asterisk-prompt-it/asterisk-prompt-it-menardi-wav_1.4.22+mm20110907-3.1_all.deb",
        "3094530d98f8758ac275572d59624c41f60969fef883f34f4886d144f3dfeb21",
    ),
    "tuxpaint-stamps-default": (
        "pool/main/t/tuxpaint-stamps/tuxpaint-stamps-default_2022.06.04-1_all.deb",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    ),
    "gcompris-qt-data": (
        "pool/main/g/gcompris-qt/gcompris-qt-data_3.1-2_all.deb",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
    ),
    "fluidr3mono-gm-soundfont": (
        "pool/main/f/fluidr3mono-gm-soundfont/fluidr3mono-gm-soundfont_2.315-7_all.deb",
        "4098301bf29f4253c2f5799a844f42dd4aa733d91a210071ad16d7757dea51d6",
    ),
}

# name: its version, and the sha256 of its wheels (Linux on x86-64, Python 3.11 and 3.12)
WHEELS = {
    "tinysoundfont": (
        "0.3.7",
        (
            "f638536ce801dd77526419e25a53576ffd4f7d58d6e1673e6b70a1a8c4773448",
            "c48a614fbc0287f16ad4bef857c79e80ba9e413474fbe47f460d2dd1ec449d4b",
        ),
    ),
}


def folder(name: str, cache: pathlib.Path) -> pathlib.Path:
    """The folder with a package's files, which is downloaded first where it is not there.

    Raises:
        ValueError: what came is not the package that was meant.
        OSError: it can't be had.
    """
    place = cache / name
    if not place.is_dir():
        path, digest = PACKAGES[name]
        partial = cache / f"{name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        unpack(download(f"{DEBIAN}/{path}", digest), partial)
        partial.rename(place)
    return place


def wheel(name: str, cache: pathlib.Path) -> pathlib.Path:
    """The folder to import a Python package from, which pip installs there alone, without what it would need to play.

    Raises:
        OSError: pip can't install it.
    """
    place = cache / f"{name}-{sys.version_info.major}.{sys.version_info.minor}"
    if not place.is_dir():
        version, digests = WHEELS[name]
        wanted = cache / f"{name}.txt"
        cache.mkdir(parents=True, exist_ok=True)
        wanted.write_text(f"{name}=={version} " + " ".join(f"--hash=sha256:{digest}" for digest in digests))
        partial = cache / f"{place.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "install", "-qq", "--no-deps", "--require-hashes", "-r", str(wanted)]
        if subprocess.run([*command, "--target", str(partial)]).returncode:
            raise OSError(f"pip can't install {name} {version}; leave its source out with --sources")
        partial.rename(place)
    return place


def download(address: str, digest: str) -> bytes:
    """What is at an address, if its sha256 is the one that was pinned."""
    print(f"downloading {address}", flush=True)
    try:
        with urllib.request.urlopen(address, timeout=120) as answer:
            content = b"".join(iter(lambda: answer.read(BLOCK), b""))
    except urllib.error.URLError as error:
        advice = "if the mirror has dropped this version, set DEBIAN_MIRROR to one that has it, as a snapshot"
        raise OSError(f"{address}: {error}; {advice}") from error
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise ValueError(f"{address}: refused, for its sha256 is {found}, not {digest}: damaged, or not the same file")
    return content


def unpack(package: bytes, place: pathlib.Path) -> None:
    """Writes the sounds, texts and licence of a Debian package into a folder."""
    data = next(content for name, content in members(package) if name.startswith("data.tar"))
    place.mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(KEPT):
                archive.extract(member, place, filter="data")


def members(package: bytes) -> Iterator[tuple[str, bytes]]:
    """Names and contents of an `ar` archive, which a Debian package is."""
    if not package.startswith(b"!<arch>\n"):
        raise ValueError("not a Debian package")
    at = 8
    while at + 60 <= len(package):
        header = package[at : at + 60]
        size = int(header[48:58])
        yield header[:16].decode().rstrip(" /"), package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
