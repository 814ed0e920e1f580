"""OpenAI Whisper from a Python package that carries it in CTranslate2's format, as a Hugging Face folder."""

import io
import json
import pathlib
import struct

import numpy as np
from safetensors.numpy import save_file

OLDEST_FORMAT = 6
DTYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
ENGLISH_VOCABULARY = 51864
HEAD_WIDTH = 64

Arrays = dict[str, np.ndarray]


def write(files: dict[str, bytes], folder: pathlib.Path) -> None:
    """Writes the folder from a package's files: model.bin (or its parts), config.json and tokenizer.json."""
    blob = b"".join(files[name] for name in sorted(files) if name.startswith("model.bin"))
    state = rename(read_ctranslate2(blob))
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer, about = json.loads(files["tokenizer.json"]), json.loads(files["config.json"])
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ends = end_tokens(len(state["model.decoder.embed_tokens.weight"]))
    (folder / "tokenizer.json").write_bytes(files["tokenizer.json"])
    (folder / "vocab.json").write_text(json.dumps(tokenizer["model"]["vocab"], ensure_ascii=False))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    for name, content in {
        "config.json": model_config(state, ends),
        "generation_config.json": generation_config(about, ids, ends),
        "preprocessor_config.json": preprocessor_config(state["model.encoder.conv1.weight"].shape[1]),
        "tokenizer_config.json": tokenizer_config(ids),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def read_ctranslate2(blob: bytes) -> Arrays:
    """The arrays of a CTranslate2 model.bin by their names there, aliases included.

    The format, little-endian: u32 version; string specification; u32 revision; u32 count, and for each array string
    name, u8 rank, u32 sizes, u8 dtype, u32 bytes, data; u32 count, and for each alias two strings. A string is u16
    length and that many bytes, the last of which is zero.
    """
    stream = io.BytesIO(blob)

    def number(kind: str) -> int:
        return struct.unpack("<" + kind, stream.read(struct.calcsize(kind)))[0]

    def string() -> str:
        return stream.read(number("H"))[:-1].decode()

    def array() -> np.ndarray:
        shape = [number("I") for _ in range(number("B"))]
        dtype = DTYPES[number("B")]
        return np.frombuffer(stream.read(number("I")), dtype).reshape(shape)

    version = number("I")
    if version < OLDEST_FORMAT:
        raise ValueError(f"model.bin is in format {version} of CTranslate2; {OLDEST_FORMAT} or newer can be read")
    string(), number("I")
    arrays = {string(): array() for _ in range(number("I"))}
    aliases = {string(): string() for _ in range(number("I"))}
    return arrays | {alias: arrays[name] for alias, name in aliases.items()}


def rename(arrays: Arrays) -> Arrays:
    """CTranslate2's arrays under transformers' names; fused projections are split."""
    state = {}
    for side in ("encoder", "decoder"):
        state[f"{side}.embed_positions.weight"] = arrays[f"{side}/position_encodings/encodings"]
        state |= norm(f"{side}.layer_norm", arrays, f"{side}/layer_norm")
        for layer in range(depth(arrays, side)):
            state |= block(f"{side}.layers.{layer}", arrays, f"{side}/layer_{layer}")
    for convolution in ("conv1", "conv2"):
        state |= linear(f"encoder.{convolution}", arrays, f"encoder/{convolution}")
    state["decoder.embed_tokens.weight"] = arrays["decoder/embeddings/weight"]
    return {f"model.{name}": np.ascontiguousarray(array) for name, array in state.items()}


def depth(arrays: Arrays, side: str) -> int:
    return len({name.split("/")[1] for name in arrays if name.startswith(f"{side}/layer_") and name.count("/") > 2})


def block(name: str, arrays: Arrays, source: str) -> Arrays:
    state = attention(f"{name}.self_attn", arrays, f"{source}/self_attention")
    if f"{source}/attention/linear_0/weight" in arrays:
        state |= attention(f"{name}.encoder_attn", arrays, f"{source}/attention")
    state |= norm(f"{name}.final_layer_norm", arrays, f"{source}/ffn/layer_norm")
    state |= linear(f"{name}.fc1", arrays, f"{source}/ffn/linear_0")
    return state | linear(f"{name}.fc2", arrays, f"{source}/ffn/linear_1")


def attention(name: str, arrays: Arrays, source: str) -> Arrays:
    """q, k, v in as many projections as there are before the output's: one (self-attention) or q and kv (cross)."""
    inputs = sorted(key for key in arrays if key.startswith(f"{source}/linear_") and key.endswith("/weight"))[:-1]
    width = arrays[inputs[0]].shape[1]
    weight = np.concatenate([arrays[key] for key in inputs])
    bias = np.concatenate([arrays[key.replace("/weight", "/bias")] for key in inputs])
    if bias[width : 2 * width].any():
        raise ValueError(f"{source}: Whisper's keys have no bias, yet this file's do")
    state = norm(f"{name}_layer_norm", arrays, f"{source}/layer_norm")
    for index, part in enumerate(("q_proj", "k_proj", "v_proj")):
        rows = slice(index * width, (index + 1) * width)
        state[f"{name}.{part}.weight"] = weight[rows]
        if part != "k_proj":
            state[f"{name}.{part}.bias"] = bias[rows]
    return state | linear(f"{name}.out_proj", arrays, f"{source}/linear_{len(inputs)}")


def linear(name: str, arrays: Arrays, source: str) -> Arrays:
    return {f"{name}.weight": arrays[f"{source}/weight"], f"{name}.bias": arrays[f"{source}/bias"]}


def norm(name: str, arrays: Arrays, source: str) -> Arrays:
    return {f"{name}.weight": arrays[f"{source}/gamma"], f"{name}.bias": arrays[f"{source}/beta"]}


def end_tokens(vocabulary: int) -> dict[str, int]:
    end = 50256 if vocabulary == ENGLISH_VOCABULARY else 50257
    return {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "decoder_start_token_id": end + 1}


def model_config(state: Arrays, ends: dict[str, int]) -> dict:
    vocabulary, width = state["model.decoder.embed_tokens.weight"].shape
    config = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "torch_dtype": str(state["model.decoder.embed_tokens.weight"].dtype),
        **ends,
        "activation_function": "gelu",
        "d_model": width,
        "is_encoder_decoder": True,
        "max_source_positions": len(state["model.encoder.embed_positions.weight"]),
        "max_target_positions": len(state["model.decoder.embed_positions.weight"]),
        "num_mel_bins": state["model.encoder.conv1.weight"].shape[1],
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "vocab_size": vocabulary,
    }
    for side in ("encoder", "decoder"):
        layers = {name.split(".")[3] for name in state if name.startswith(f"model.{side}.layers.")}
        config[f"{side}_layers"] = len(layers)
        config[f"{side}_attention_heads"] = width // HEAD_WIDTH
        config[f"{side}_ffn_dim"] = len(state[f"model.{side}.layers.0.fc1.weight"])
    return config


def generation_config(about: dict, ids: dict[str, int], ends: dict[str, int]) -> dict:
    config = {
        **ends,
        "alignment_heads": about.get("alignment_heads"),
        "begin_suppress_tokens": about["suppress_ids_begin"],
        "is_multilingual": ends["eos_token_id"] != 50256,
        "max_initial_timestamp_index": 50,
        "max_length": 448,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": about["suppress_ids"],
    }
    if config["is_multilingual"]:
        languages = set(about["lang_ids"])
        config["lang_to_id"] = {token: number for token, number in ids.items() if number in languages}
        config["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
        config["forced_decoder_ids"] = [[1, None], [2, ids["<|transcribe|>"]]]  # without it, it never gets its task
    return config


def preprocessor_config(mels: int) -> dict:
    return {
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": mels,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16000,
    }


def tokenizer_config(ids: dict[str, int]) -> dict:
    end = "<|endoftext|>"
    special = [token for token in ids if token.startswith("<|") and token != end and "." not in token]
    return {
        "tokenizer_class": "WhisperTokenizer",
        "additional_special_tokens": special,  # all but the time stamps
        "model_max_length": 1024,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), end),
    }
