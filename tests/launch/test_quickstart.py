"""What the quickstart trains on: models, clips, rows; and how it takes its arguments."""

import json
import os
import pathlib
import re
import shlex
import shutil
import struct
import subprocess
import sys
import wave

import jax
import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

import account
import micro_models
import packaged_smollm2
import packaged_whisper
import real_models
import spoken_clips
from desta_jax import cli
from desta_jax.generation import Answer
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.records.rows import parse_row
from desta_jax.weights.adapter import write_adapter
from desta_jax.weights.convert import convert

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    spoken_clips.make(folder, ["en-us", "it"], sentences=1)
    return folder


def samples_of(path):
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16).astype(int), file.getframerate()


@pytest.mark.parametrize("split", ["train", "validation"])
def test_rows_are_aqa5m_rows_and_their_clips_are_heard(clips, split):
    lines = (clips / f"{split}.jsonl").read_bytes().splitlines()
    assert len(lines) == 2 * len(spoken_clips.VOICES) * (1 if split == "train" else spoken_clips.HELD_OUT)
    for line in lines:
        (clip,) = parse_row(line, "row").clips
        samples, rate = samples_of(clips / "audio" / clip)
        assert 1 < len(samples) / rate < 4
        assert np.abs(samples).max() > 3000


def test_held_out_sentences_are_not_trained_on(clips):
    said = {
        split: {json.loads(line)["messages"][1]["audios"][0]["text"] for line in (clips / f"{split}.jsonl").open()}
        for split in ("train", "validation")
    }
    assert not said["train"] & said["validation"]


def test_the_same_command_makes_the_same_files(tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        command = [sys.executable, LAUNCH / "spoken_clips.py", folder, "--languages", "de", "--sentences", "1"]
        subprocess.run(command, check=True, capture_output=True)
        made.append({file.name: file.read_bytes() for file in folder.rglob("*") if file.is_file()})
    assert made[0] == made[1] and len(made[0]) == 2 + 3 * len(spoken_clips.VOICES)


def test_a_voice_that_is_not_there_is_an_error():
    with spoken_clips.Espeak() as espeak, pytest.raises(ValueError, match="no voice nobody"):
        espeak.say("Hello", "nobody")


@pytest.fixture(scope="module")
def micro(tmp_path_factory):
    out = tmp_path_factory.mktemp("models")
    micro_models.make(out / "llama", micro_models.llama_weights(), micro_models.CHAT, micro_models.llama_settings)
    special = micro_models.TRANSCRIPTION
    micro_models.make(out / "whisper", micro_models.whisper_weights(), special, micro_models.whisper_settings)
    return out


@pytest.mark.parametrize(
    ("name", "model"),
    [("llama", transformers.AutoModelForCausalLM), ("whisper", transformers.WhisperForConditionalGeneration)],
)
def test_transformers_loads_a_micro_model_whole(micro, name, model):
    _, info = model.from_pretrained(micro / name, output_loading_info=True)
    assert not any(info.values()), info


def test_the_micro_tokenizer_keeps_words_and_has_the_placeholder(micro):
    tokenizer = transformers.AutoTokenizer.from_pretrained(micro / "llama")
    words = "¿Puedes abrir la ventana? 你好\n"
    assert tokenizer.decode(tokenizer(words).input_ids) == words
    assert len(tokenizer("<|placeholder|>").input_ids) == 1


def test_the_exported_adapter_is_asked_about_a_held_out_clip(micro, clips, tmp_path):
    """With nothing but the clip: the row's own transcript is not read, Whisper's is."""
    convert(micro / "llama", micro / "whisper", tmp_path / "model")
    adapter = AudioLM(
        WhisperShape.from_hf(json.loads((micro / "whisper" / "config.json").read_text())),
        DecoderShape.from_hf(json.loads((micro / "llama" / "config.json").read_text())),
        AdapterShape(num_layers=1, prompt_size=8, tap_layers=(0, 1)),
    ).init_adapter(jax.random.key(0))
    names = {"llm_model_id": "llama", "encoder_model_id": "whisper", "placeholder_token": "<|placeholder|>"}
    write_adapter(tmp_path / "adapter", adapter, tap_layers=(0, 1), audio_seconds=4, **names)
    (tmp_path / "clips").symlink_to(clips)
    row = json.loads((clips / "validation.jsonl").read_text().splitlines()[0])
    answer = account.ask(tmp_path, row)
    (clip,) = row["messages"][1]["audios"]
    samples, _ = samples_of(clips / "audio" / clip["audio"])
    whisper = transformers.WhisperForConditionalGeneration.from_pretrained(micro / "whisper")
    mel = transformers.WhisperFeatureExtractor()(samples / 32768, sampling_rate=16000, return_tensors="pt")
    written = whisper.generate(mel.input_features, max_new_tokens=128)[0]
    tokenizer = transformers.AutoTokenizer.from_pretrained(micro / "whisper")
    assert answer.transcripts == (tokenizer.decode(written, skip_special_tokens=True).strip(),)
    assert answer.token_ids


def test_the_commands_at_the_end_can_be_run_as_they_are(clips, tmp_path, monkeypatch):
    here = tmp_path / "my clips"
    (here / "run").mkdir(parents=True)
    (here / "clips").symlink_to(clips)
    (here / "run" / "validation.jsonl").write_text('{"loss": 1, "step": 2, "label_tokens": 3}\n' * 2)
    monkeypatch.setattr(account, "read_back", lambda here: (2, 4))
    monkeypatch.setattr(account, "ask", lambda here, row: Answer(transcripts=("said",)))
    generate, help = (
        shlex.split(line, comments=True) for line in re.findall(r"^  \S*desta-jax .*", account.account(here), re.M)
    )
    assert help == [generate[0], "--help"] and pathlib.Path(help[0]).is_file()
    values = cli._parse(generate[1], generate[2:])
    assert (values.model, values.adapter) == (str(here / "model"), str(here / "adapter"))


def test_a_long_quotation_is_cut():
    assert account.quote('a "b"\n') == r'"a \"b\"\n"'
    assert account.quote("x" * 500) == '"' + "x" * 149 + ' ..."'


def test_rotary_halves_are_put_back_as_llama_cpp_took_them_apart():
    kernel = np.arange(2 * 8 * 3).reshape(16, 3)  # two heads of eight rows
    interleaved = kernel.reshape(2, 2, 4, 3).swapaxes(1, 2).reshape(16, 3)  # as its convert script permutes q and k
    np.testing.assert_array_equal(packaged_smollm2.halves_apart(interleaved, heads=2), kernel)


def test_ctranslate2_arrays_get_their_transformers_names_back(micro):
    state = load_file(micro / "whisper" / "model.safetensors")
    arrays = as_ctranslate2(state)
    renamed = packaged_whisper.rename(packaged_whisper.read_ctranslate2(as_model_bin(arrays)))
    assert renamed.keys() == state.keys()
    for name in state:
        np.testing.assert_array_equal(renamed[name], state[name], err_msg=name)


def as_ctranslate2(state):
    """The arrays as CTranslate2's converter lays them out: projections that share an input are fused."""
    arrays = {"decoder/embeddings/weight": state["model.decoder.embed_tokens.weight"]}

    def put(target, source, weight="weight", bias="bias"):
        arrays[f"{target}/{weight}"] = state[f"model.{source}.weight"]
        arrays[f"{target}/{bias}"] = state[f"model.{source}.bias"]

    def fuse(target, source, parts):
        rows = [state[f"model.{source}.{part}_proj.weight"] for part in parts]
        zeros = np.zeros(micro_models.WIDTH, np.float32)
        arrays[f"{target}/weight"] = np.concatenate(rows)
        arrays[f"{target}/bias"] = np.concatenate(
            [state.get(f"model.{source}.{part}_proj.bias", zeros) for part in parts]
        )

    for side in ("encoder", "decoder"):
        arrays[f"{side}/position_encodings/encodings"] = state[f"model.{side}.embed_positions.weight"]
        put(f"{side}/layer_norm", f"{side}.layer_norm", "gamma", "beta")
        for layer in range(micro_models.LAYERS):
            ours, theirs = f"{side}.layers.{layer}", f"{side}/layer_{layer}"
            fuse(f"{theirs}/self_attention/linear_0", f"{ours}.self_attn", "qkv")
            put(f"{theirs}/self_attention/linear_1", f"{ours}.self_attn.out_proj")
            put(f"{theirs}/self_attention/layer_norm", f"{ours}.self_attn_layer_norm", "gamma", "beta")
            if side == "decoder":
                fuse(f"{theirs}/attention/linear_0", f"{ours}.encoder_attn", "q")
                fuse(f"{theirs}/attention/linear_1", f"{ours}.encoder_attn", "kv")
                put(f"{theirs}/attention/linear_2", f"{ours}.encoder_attn.out_proj")
                put(f"{theirs}/attention/layer_norm", f"{ours}.encoder_attn_layer_norm", "gamma", "beta")
            put(f"{theirs}/ffn/layer_norm", f"{ours}.final_layer_norm", "gamma", "beta")
            put(f"{theirs}/ffn/linear_0", f"{ours}.fc1")
            put(f"{theirs}/ffn/linear_1", f"{ours}.fc2")
    for convolution in ("conv1", "conv2"):
        put(f"encoder/{convolution}", f"encoder.{convolution}")
    return arrays


def as_model_bin(arrays):
    def string(text):
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    blob = struct.pack("<I", 6) + string("WhisperSpec") + struct.pack("<II", 3, len(arrays))
    for name, array in arrays.items():
        blob += string(name) + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        blob += struct.pack("<BI", 0, array.nbytes) + array.tobytes()
    return blob + struct.pack("<I", 0)


def test_models_come_from_packages_where_the_hub_cannot_be_reached(tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr(real_models.huggingface_hub, "HfApi", unreachable)
    monkeypatch.setattr(real_models, "from_packages", lambda name, folder, cache: (folder / "made").touch())
    assert (real_models.make("whisper-base", tmp_path) / "made").exists()


def test_a_folder_that_is_half_written_is_not_taken_for_a_model(tmp_path, monkeypatch):
    def stopped(_, folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(real_models, "from_hub", stopped)
    with pytest.raises(KeyboardInterrupt):
        real_models.make("whisper-base", tmp_path, source="hub")
    assert not (tmp_path / "whisper-base").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--step", "3"], "there is no argument --step"),
        (["--steps", "many"], "--steps must be a number of steps, not 'many'"),
        (["--steps"], "--steps needs a value"),
        (["--out="], "--out needs a folder"),
    ],
)
def test_the_quickstart_refuses_wrong_arguments(arguments, message, tmp_path):
    done = subprocess.run(
        [LAUNCH / "quickstart.sh", *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL, cwd=tmp_path
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_quickstart_goes_on_with_nothing_that_was_made_otherwise(tmp_path):
    (tmp_path / "launch").mkdir()
    (tmp_path / "data/listening/adapter").mkdir(parents=True)
    for name in ("quickstart.sh", "stages.sh"):
        shutil.copy(LAUNCH / name, tmp_path / "launch")
    (tmp_path / "launch/environment.sh").write_text("#!/bin/sh\nexit 3\n")  # the first stage
    (tmp_path / "launch/environment.sh").chmod(0o755)
    adapter = tmp_path / "data/listening/adapter/model.safetensors"
    adapter.write_text("one")
    adapter.with_name("config.json").touch()

    def begin(*arguments):
        command = [tmp_path / "launch/quickstart.sh", "--out", tmp_path / "out", *arguments]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL).returncode

    assert begin() == begin() == 3 and begin("--steps", "5") == 2
    adapter.write_text("another")
    assert begin() == 2 and begin("--from_scratch", "--steps", "5") == begin("--micro") == 3
    (tmp_path / "out/micro/settings.txt").unlink()
    assert begin("--micro", "--steps", "5") == 3
    (tmp_path / "out/smol-from-scratch/settings.txt").unlink()
    (tmp_path / "out/smol-from-scratch/model").mkdir()  # of a time that left no note
    assert begin("--from_scratch", "--steps", "5") == 2


PYTHON = """#!/bin/sh
# Makes environments of itself, and installs nothing.
if [ "$2" = venv ]; then mkdir "$3/bin"; cp "$0" "$3/bin/python"; fi
"""


def test_a_copied_checkout_makes_an_environment_of_its_own(tmp_path):
    checkout, copy, python = tmp_path / "checkout", tmp_path / "copy", tmp_path / "python3"
    (checkout / "desta_jax").mkdir(parents=True)
    (checkout / "launch").mkdir()
    for file in ("launch/environment.sh", "launch/requirements.lock", "setup.py", "desta_jax/__init__.py"):
        shutil.copy(LAUNCH.parent / file, checkout / file)
    python.write_text(PYTHON)
    python.chmod(0o755)

    def make(place):
        command = [place / "launch/environment.sh", ".venv", "launch/requirements.lock"]
        return subprocess.run(
            command, env=os.environ | {"PYTHON": python}, capture_output=True, text=True, check=True
        ).stdout

    assert "Making the Python environment .venv" in make(checkout)
    assert not make(checkout)
    shutil.copytree(checkout, copy)
    assert "Making the Python environment .venv" in make(copy)
    assert not make(copy)


def test_a_python_that_cannot_be_used_is_named(tmp_path):
    command = [LAUNCH / "environment.sh", tmp_path / "env", LAUNCH / "requirements.lock"]
    environment = os.environ | {"PYTHON": str(tmp_path / "python3.12")}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 1 and f"PYTHON={tmp_path}/python3.12 is no Python 3.11 or newer" in ended.stderr
    assert not (tmp_path / "env").exists()
