"""Names on the Hub become folders, or an error that says what to do."""

import fnmatch
import types

import huggingface_hub
import pytest
from huggingface_hub import errors

from desta_jax.weights import hub

WHISPER_NEEDED = {"config.json", "preprocessor_config.json", "tokenizer.json", "merges.txt", "model.safetensors"}
WHISPER_OTHERS = {
    "model.fp32-00001-of-00002.safetensors",
    "model.safetensors.index.fp32.json",
    "flax_model.msgpack",
    "pytorch_model.bin",
    "pytorch_model.fp32-00001-of-00002.bin",
    "README.md",
}
LLAMA_NEEDED = {
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model-00001-of-00002.safetensors",
    "model-00002-of-00002.safetensors",
    "model.safetensors.index.json",
}
LLAMA_OTHERS = {"original/consolidated.00.pth", "original/params.json", "original/tokenizer.model", "LICENSE"}


class ClientTimeout(Exception):
    """As the HTTP client raises: no kin of OSError."""


@pytest.fixture
def downloads(monkeypatch, tmp_path):
    """Calls of snapshot_download, which gives a folder or raises what the test puts in."""
    calls = {"seen": [], "raises": None}

    def download(name, *, revision, allow_patterns):
        calls["seen"].append((name, revision, allow_patterns))
        if calls["raises"]:
            raise calls["raises"]
        return str(tmp_path / "models--x" / "snapshots" / "0123abcd")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_a_folder_is_itself(downloads, tmp_path):
    assert hub.resolve(tmp_path) == tmp_path
    assert hub.revision_of(tmp_path) is None
    assert not downloads["seen"]


@pytest.mark.parametrize("source, revision", [("openai/whisper-tiny", None), ("openai/whisper-tiny@v1.0", "v1.0")])
def test_a_name_is_downloaded(downloads, source, revision):
    folder = hub.resolve(source)
    assert downloads["seen"][0][:2] == ("openai/whisper-tiny", revision)
    assert hub.revision_of(folder) == "0123abcd"


@pytest.mark.parametrize("needed, others", [(WHISPER_NEEDED, WHISPER_OTHERS), (LLAMA_NEEDED, LLAMA_OTHERS)])
def test_only_the_files_needed_are_downloaded(downloads, needed, others):
    hub.resolve("owner/name")
    patterns = downloads["seen"][0][2]
    assert {f for f in needed | others if any(fnmatch.fnmatch(f, pattern) for pattern in patterns)} == needed


def of_status(error, status):
    return error("refused", response=types.SimpleNamespace(status_code=status, headers={}, request=None))


@pytest.mark.parametrize(
    "raised, expected",
    [
        (
            of_status(errors.GatedRepoError, 403),
            r"is gated: accept .*huggingface.co/owner/name.*HF_TOKEN",
        ),
        (
            of_status(errors.RepositoryNotFoundError, 404),
            r"^owner/name: there is no such folder here, and no such model.*spelling",
        ),
        (of_status(errors.RevisionNotFoundError, 404), r"has no revision 'v9': see .*commits"),
        (
            errors.LocalEntryNotFoundError("no connection"),
            r"^owner/name: there is no such folder here.*no connection.*try again",
        ),
        (errors.OfflineModeIsEnabled("offline"), r"could not be downloaded.*offline.*try again"),
        (ClientTimeout("timed out"), r"could not be downloaded.*timed out.*resumes"),
    ],
)
def test_what_goes_wrong_is_explained(downloads, raised, expected):
    downloads["raises"] = raised
    with pytest.raises(ValueError, match=expected):
        hub.resolve("owner/name@v9")


@pytest.mark.parametrize("source", ["llama", "./models/llama", "/nowhere/llama", "a/b/c", "~/nowhere"])
def test_a_path_that_is_not_there_is_no_name(downloads, source):
    with pytest.raises(ValueError, match="no such folder"):
        hub.resolve(source)
    assert not downloads["seen"]


def test_a_file_is_no_model(downloads, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="no such folder"):
        hub.resolve(tmp_path / "model.safetensors")
