"""Small random models as transformers saves them, converted, with an adapter; the torch models beside them."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile
import tokenizers
import torch
import transformers

from desta_jax import generation
from desta_jax.models.audio_lm import AudioLM
from desta_jax.models.shapes import AdapterShape, DecoderShape, WhisperShape
from desta_jax.weights.adapter import write_adapter
from desta_jax.weights.convert import convert

TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<|end|>", "<|begin|>", "<|spare|>", "<|user|>", "<|system|>", "<|assistant|>"]
VOCABULARY = 264
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "eos_token_id": 0,
    "bos_token_id": 1,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**DECODER, rope_parameters=LLAMA3_ROPE),
    "qwen2": lambda: transformers.Qwen2Config(**DECODER, tie_word_embeddings=True),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER, head_dim=16),
}
WHISPER = {
    "vocab_size": VOCABULARY,
    "num_mel_bins": 80,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 40,
    "decoder_ffn_dim": 56,
    "max_target_positions": 140,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
    "decoder_start_token_id": 1,
}
PROMPT_SIZE = 4


def save_tokenizer(folder, template):
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    ids = {token: index for index, token in enumerate(SPECIAL + alphabet)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(SPECIAL)
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


def randomise(model, scale):
    """Weights large enough that the likeliest token stands out; no bias zero, no norm one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if name.endswith("norm.weight") else 0.0, scale)
    return model.eval()


def save_llm(folder, family):
    torch.manual_seed(3)
    model = randomise(transformers.AutoModelForCausalLM.from_config(FAMILIES[family]()), 0.2)
    model = model.bfloat16().float()  # the converted folder keeps bfloat16
    model.save_pretrained(folder)
    save_tokenizer(folder, TEMPLATE)
    return model


def save_whisper(folder):
    torch.manual_seed(4)
    model = randomise(transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER)), 0.6)
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=80).save_pretrained(folder)
    save_tokenizer(folder, None)
    return model


def random_adapter(llm, whisper, lora_rank=0):
    shape = AdapterShape(num_layers=1, prompt_size=PROMPT_SIZE, tap_layers=(0, 1), lora_rank=lora_rank)
    audio_lm = AudioLM(
        WhisperShape.from_hf(whisper.config.to_dict()), DecoderShape.from_hf(llm.config.to_dict()), shape
    )
    leaves, structure = jax.tree.flatten(audio_lm.abstract_adapter())
    random = np.random.default_rng(5)
    drawn = [random.normal(0, 0.2, leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(structure, drawn), shape


def save_adapter(folder, llm, whisper, lora_rank=0):
    adapter, shape = random_adapter(llm, whisper, lora_rank)
    names = {"llm_model_id": "llm", "encoder_model_id": "whisper", "placeholder_token": "<|spare|>"}
    write_adapter(folder, adapter, tap_layers=shape.tap_layers, **names)
    return adapter, shape


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """By family: the converted folder, its adapter's folder, the torch models."""
    root = tmp_path_factory.mktemp("generation")
    whisper = save_whisper(root / "whisper")
    families = {}
    for family in FAMILIES:
        llm = save_llm(root / family / "llm", family)
        save_adapter(root / family / "adapter", llm, whisper)
        convert(root / family / "llm", root / "whisper", root / family / "model")
        families[family] = types.SimpleNamespace(
            folder=root / family / "model", adapter=root / family / "adapter", llm=llm, whisper=whisper
        )
    return families


@pytest.fixture(scope="session")
def adapter_with_lora(made, tmp_path_factory):
    """Folder of an adapter for the Llama, its LoRA tree, and the factor of its updates."""
    folder = tmp_path_factory.mktemp("lora") / "adapter"
    adapter, shape = save_adapter(folder, made["llama"].llm, made["llama"].whisper, lora_rank=3)
    return folder, adapter["lora"], shape.lora_alpha / shape.lora_rank


@pytest.fixture(scope="session")
def load(made):
    """The function that loads a family's model (the same one each time), or one with other settings."""
    models = {}

    def load(family="llama", **settings):
        if settings:
            return generation.load(made[family].folder, cache_programs=False, **settings)
        if family not in models:
            models[family] = generation.load(
                made[family].folder, adapter=made[family].adapter, dtype="float32", cache_programs=False
            )
        return models[family]

    return load


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Files of noise, with a tone each, of 2, 3 and 65 seconds."""
    folder, random, files = tmp_path_factory.mktemp("clips"), np.random.default_rng(6), []
    for index, seconds in enumerate((2, 3, 65)):
        time = np.arange(seconds * 16000) / 16000
        samples = 0.3 * np.sin(2 * np.pi * 220 * (index + 1) * time) + 0.05 * random.standard_normal(len(time))
        files.append(str(folder / f"clip{index}.wav"))
        soundfile.write(files[-1], samples, 16000)
    return files


@pytest.fixture(scope="session")
def ask():
    """The function that makes messages about clips, with transcripts."""

    def ask(question, *clips, text="said"):
        audios = [{"audio": clip, "text": f"{text} {index}"} for index, clip in enumerate(clips)]
        return [{"role": "user", "content": "<|AUDIO|>" * len(clips) + question, "audios": audios}]

    return ask


@pytest.fixture(scope="session")
def answer_in_torch(made, load):
    """The function that has transformers answer a prompt whose soft tokens are given."""

    def answer(family, prompt, soft, new_tokens):
        llm = made[family].llm
        tokens, slots = torch.tensor(prompt.tokens)[None].long(), torch.tensor(prompt.audio_slots)
        embeds = llm.get_input_embeddings()(tokens)
        if prompt.clips:
            embeds[0, slots >= 0] = torch.tensor(np.asarray(soft, np.float32))[slots[slots >= 0].long()]
        with torch.no_grad():
            out = llm.generate(
                inputs_embeds=embeds, attention_mask=torch.ones_like(tokens), max_new_tokens=new_tokens, do_sample=False
            )
        return tuple(out[0].tolist())

    return answer


@pytest.fixture(scope="session")
def soft_of(load):
    """The function that gives the soft tokens of clips."""
    from desta_jax.audio.load import load_audio

    def soft_of(model, *clips):
        heard = model.ear.listen([load_audio(clip) for clip in clips], [False] * len(clips))
        return jnp.concatenate([ears.soft for ears in heard])

    return soft_of
