"""SmolLM2-135M-Instruct from a Python package that carries it as GGUF, as a Hugging Face folder."""

import json
import pathlib
import tempfile

import gguf
import ml_dtypes
import numpy as np
import tokenizers
from safetensors.numpy import save_file

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTROL_TOKEN = 3  # GGUF's number for that kind
BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def write(files: dict[str, bytes], folder: pathlib.Path) -> None:
    """Writes the folder from a package's files."""
    with tempfile.NamedTemporaryFile(suffix=".gguf") as file:
        file.write(files[FILE])
        file.flush()
        reader = gguf.GGUFReader(file.name)
        about = {key: field.contents() for key, field in reader.fields.items()}
        state = weights(reader, about)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer(about).save(str(folder / "tokenizer.json"))
    ends = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    for name, content in {
        "config.json": model_config(about) | ends,
        "generation_config.json": ends,
        "tokenizer_config.json": tokenizer_config(about),
    }.items():
        (folder / name).write_text(json.dumps(content, indent=1))


def weights(reader: gguf.GGUFReader, about: dict) -> dict[str, np.ndarray]:
    """The tensors under transformers' names, their 4 bits as the bfloat16 values they stand for."""
    names = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    for layer in range(about["llama.block_count"]):
        names |= {f"blk.{layer}.{a}.weight": f"model.layers.{layer}.{b}.weight" for a, b in BLOCK.items()}
    heads = {"attn_q": about["llama.attention.head_count"], "attn_k": about["llama.attention.head_count_kv"]}
    state = {}
    for tensor in reader.tensors:
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            array = halves_apart(array, heads[part])
        state[names[tensor.name]] = array.astype(ml_dtypes.bfloat16)
    if missing := set(names.values()) - set(state):
        raise ValueError(f"{FILE} lacks {sorted(missing)}")
    return state


def halves_apart(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Undoes GGUF's order of a head's rows, in which the two of each rotary pair are neighbours."""
    rows, columns = kernel.shape
    return kernel.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def model_config(about: dict) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "bfloat16",
        "attention_bias": False,
        "hidden_act": "silu",
        "hidden_size": about["llama.embedding_length"],
        "initializer_range": 0.02,
        "intermediate_size": about["llama.feed_forward_length"],
        "max_position_embeddings": about["llama.context_length"],
        "mlp_bias": False,
        "num_attention_heads": about["llama.attention.head_count"],
        "num_hidden_layers": about["llama.block_count"],
        "num_key_value_heads": about["llama.attention.head_count_kv"],
        "rms_norm_eps": float(f"{about['llama.attention.layer_norm_rms_epsilon']:.6g}"),
        "rope_scaling": None,
        "rope_theta": about["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "vocab_size": about["llama.vocab_size"],
    }


def tokenizer(about: dict) -> tokenizers.Tokenizer:
    """The byte-level BPE of the file; digits stand alone. (Other readers of GGUF add a BOS.)"""
    tokens = about["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in about["tokenizer.ggml.merges"]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({token: number for number, token in enumerate(tokens)}, merges))
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = tokenizers.pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([digits, byte_level])
    made.decoder = tokenizers.decoders.ByteLevel()
    control = [token for token, kind in zip(tokens, about["tokenizer.ggml.token_type"]) if kind == CONTROL_TOKEN]
    made.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in control])
    return made


def tokenizer_config(about: dict) -> dict:
    unknown, begin, end = about["tokenizer.ggml.tokens"][:3]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": end,
        "unk_token": unknown,
        "chat_template": about["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],  # no token types
        "model_max_length": 8192,
    }
