"""Makes Hugging Face folders of two random micro models, to try every stage in seconds and without a download.

    python launch/micro_models.py OUT           # OUT/micro-llama and OUT/micro-whisper

A Llama of two layers whose byte-level tokenizer is trained on the quickstart's sentences, and a Whisper of two layers
with the special tokens that transcription needs. They know nothing; every shape is right.
"""

import argparse
import json
import pathlib

import numpy as np
import tokenizers
from safetensors.numpy import save_file

from spoken_clips import LANGUAGES, QUESTIONS, SENTENCES, SYSTEM

WIDTH, MLP, LAYERS, HEADS, KEY_HEADS = 64, 128, 2, 4, 2
MELS, FRAMES, WRITTEN = 80, 1500, 448  # Whisper's own: its window in frames, and the longest text
VOCABULARY = 640
CHAT = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|placeholder|>"]
SPOKEN = ["<|en|>", "<|es|>", "<|fr|>", "<|de|>", "<|it|>"]
TASKS = ["<|translate|>", "<|transcribe|>", "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
TRANSCRIPTION = ["<|endoftext|>", "<|startoftranscript|>", *SPOKEN, *TASKS]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class Weights(dict):
    """Tensors under transformers' names, drawn one after the other."""

    def __init__(self, seed: int):
        self.random = np.random.default_rng(seed)

    def draw(self, name: str, *shape: int) -> None:
        self[name] = self.random.normal(0, np.prod(shape[1:]) ** -0.5, shape).astype(np.float32)

    def linear(self, name: str, outputs: int, inputs: int, bias: bool) -> None:
        self.draw(f"{name}.weight", outputs, inputs)
        if bias:
            self[f"{name}.bias"] = np.zeros(outputs, np.float32)

    def norm(self, name: str, bias: bool) -> None:
        self[f"{name}.weight"] = np.ones(WIDTH, np.float32)
        if bias:
            self[f"{name}.bias"] = np.zeros(WIDTH, np.float32)


def llama_weights() -> Weights:
    weights, keys = Weights(seed=1), WIDTH // HEADS * KEY_HEADS
    weights.draw("model.embed_tokens.weight", VOCABULARY, WIDTH)
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        weights.norm(f"{name}.input_layernorm", bias=False)
        for part, width in (("q", WIDTH), ("k", keys), ("v", keys), ("o", WIDTH)):
            weights.linear(f"{name}.self_attn.{part}_proj", width, WIDTH, bias=False)
        weights.norm(f"{name}.post_attention_layernorm", bias=False)
        for part, (outputs, inputs) in {"gate": (MLP, WIDTH), "up": (MLP, WIDTH), "down": (WIDTH, MLP)}.items():
            weights.linear(f"{name}.mlp.{part}_proj", outputs, inputs, bias=False)
    weights.norm("model.norm", bias=False)
    weights.draw("lm_head.weight", VOCABULARY, WIDTH)
    return weights


def whisper_weights() -> Weights:
    weights = Weights(seed=2)
    weights.draw("model.encoder.conv1.weight", WIDTH, MELS, 3)
    weights.draw("model.encoder.conv2.weight", WIDTH, WIDTH, 3)
    for convolution in ("conv1", "conv2"):
        weights[f"model.encoder.{convolution}.bias"] = np.zeros(WIDTH, np.float32)
    weights.draw("model.decoder.embed_tokens.weight", VOCABULARY, WIDTH)
    for side, positions in (("encoder", FRAMES), ("decoder", WRITTEN)):
        weights.draw(f"model.{side}.embed_positions.weight", positions, WIDTH)
        for layer in range(LAYERS):
            name = f"model.{side}.layers.{layer}"
            for attention in ("self_attn",) if side == "encoder" else ("self_attn", "encoder_attn"):
                for part in ("q", "k", "v", "out"):
                    weights.linear(f"{name}.{attention}.{part}_proj", WIDTH, WIDTH, bias=part != "k")
                weights.norm(f"{name}.{attention}_layer_norm", bias=True)
            weights.linear(f"{name}.fc1", MLP, WIDTH, bias=True)
            weights.linear(f"{name}.fc2", WIDTH, MLP, bias=True)
            weights.norm(f"{name}.final_layer_norm", bias=True)
        weights.norm(f"model.{side}.layer_norm", bias=True)
    return weights


def byte_level_tokenizer(special: list[str]) -> tokenizers.Tokenizer:
    """A byte-level BPE of VOCABULARY tokens, learnt from the quickstart's own words; special tokens come last."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    words = [SYSTEM, *LANGUAGES.values(), *(text for pair in QUESTIONS for text in pair)]
    words += [sentence for sentences in SENTENCES.values() for sentence in sentences]
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(special),
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(words, trainer)
    made.add_special_tokens(special)
    if made.get_vocab_size() != VOCABULARY:
        raise ValueError(
            f"a tokenizer of {made.get_vocab_size()} tokens, not {VOCABULARY}: too few words to learn from"
        )
    return made


def llama_settings(ids: dict[str, int]) -> dict[str, dict]:
    ends = {"bos_token_id": ids["<|im_start|>"], "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|im_end|>"]}
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        **ends,
        "attention_bias": False,
        "head_dim": WIDTH // HEADS,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": MLP,
        "max_position_embeddings": 2048,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": KEY_HEADS,
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": VOCABULARY,
    }
    tokenizer = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 2048,
    }
    return {"config.json": config, "generation_config.json": ends, "tokenizer_config.json": tokenizer}


def whisper_settings(ids: dict[str, int]) -> dict[str, dict]:
    end = ids["<|endoftext|>"]
    ends = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end)
    ends["decoder_start_token_id"] = ids["<|startoftranscript|>"]
    config = {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "torch_dtype": "float32",
        **ends,
        "activation_function": "gelu",
        "d_model": WIDTH,
        "is_encoder_decoder": True,
        "max_source_positions": FRAMES,
        "max_target_positions": WRITTEN,
        "num_mel_bins": MELS,
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "vocab_size": VOCABULARY,
    }
    for side in ("encoder", "decoder"):
        config |= {f"{side}_layers": LAYERS, f"{side}_attention_heads": HEADS, f"{side}_ffn_dim": MLP}
    generation = {
        **ends,
        "begin_suppress_tokens": [end],
        "forced_decoder_ids": [[1, None], [2, ids["<|transcribe|>"]]],
        "is_multilingual": True,
        "lang_to_id": {token: ids[token] for token in SPOKEN},
        "max_length": WRITTEN,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "return_timestamps": False,
        "suppress_tokens": [],
        "task_to_id": {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")},
    }
    features = {
        "chunk_length": 30,
        "feature_extractor_type": "WhisperFeatureExtractor",
        "feature_size": MELS,
        "hop_length": 160,
        "n_fft": 400,
        "n_samples": 480000,
        "nb_max_frames": 3000,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": False,
        "sampling_rate": 16000,
    }
    tokenizer = {
        "tokenizer_class": "WhisperTokenizer",
        "additional_special_tokens": TRANSCRIPTION[1:],
        "model_max_length": WRITTEN,
        **dict.fromkeys(("bos_token", "eos_token", "pad_token", "unk_token"), "<|endoftext|>"),
    }
    return {
        "config.json": config,
        "generation_config.json": generation,
        "preprocessor_config.json": features,
        "tokenizer_config.json": tokenizer,
    }


def make(folder: pathlib.Path, weights: Weights, special: list[str], settings) -> None:
    """Writes the folder under another name, and renames it: a folder that is there is whole."""
    if folder.is_dir():
        print(f"{folder} is there")
        return
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights), partial / "model.safetensors", metadata={"format": "pt"})
    tokenizer = byte_level_tokenizer(special)
    tokenizer.save(str(partial / "tokenizer.json"))
    for name, content in settings({token: tokenizer.token_to_id(token) for token in special}).items():
        (partial / name).write_text(json.dumps(content, indent=1))
    partial.rename(folder)
    print(f"{folder} is made")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    make(out / "micro-whisper", whisper_weights(), TRANSCRIPTION, whisper_settings)
    make(out / "micro-llama", llama_weights(), CHAT, llama_settings)


if __name__ == "__main__":
    main()
