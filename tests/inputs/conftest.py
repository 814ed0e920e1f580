"""Tokenizers of the kinds that the language models have, trained here on a few lines; and small records."""

import numpy as np
import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from desta_jax.audio.load import encode_flac
from desta_jax.inputs.prompt import PromptBuilder
from desta_jax.records import index, schema, tfrecord

CORPUS = [
    "Focus on the audio clips and instructions. Describe the audio. What is the emotion of the speaker?",
    "You are a helpful assistant. The speaker says hello in a calm voice, then a dog barks while rain falls.",
    "<start_audio><end_audio> system user assistant music genre jazz rock piano guitar 0 1 2 3 4 5 6 7 8 9",
    "Grüße aus München, café, 你好世界, привет мир, 🎵🎶",
]
LLAMA_SPLIT = "|".join(
    [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*"]
    + [r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]
)
LLAMA_SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
LLAMA_SPECIAL += [f"<|reserved_special_token_{number}|>" for number in (0, 1, 87)]
LLAMA_TEMPLATE = (
    "{% for m in messages %}{% if loop.first %}{{ bos_token }}{% endif %}<|start_header_id|>{{ m['role'] }}"
    "<|end_header_id|>\n\n{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
CHATML_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|video_pad|>"]
CHATML_TEMPLATE = (
    "DEFAULT{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
STRICT = "{% if messages[0]['role'] == 'assistant' %}{{ raise_exception('a user speaks first') }}{% endif %}"


def byte_level(special):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=480, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS * 4, trainer)
    backend.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in special])
    return backend


def llama():
    """As Llama 3: its post-processor adds a beginning-of-text token of its own."""
    backend = byte_level(LLAMA_SPECIAL)
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[(LLAMA_SPECIAL[0], backend.token_to_id(LLAMA_SPECIAL[0]))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=LLAMA_SPECIAL[0], eos_token="<|eot_id|>", chat_template=LLAMA_TEMPLATE
    )


def chatml(default_system=""):
    """As Qwen: text is normalised, and one family's template writes a system message of its own."""
    backend = byte_level(CHATML_SPECIAL)
    backend.normalizer = normalizers.NFC()
    template = CHATML_TEMPLATE.replace("DEFAULT", STRICT + default_system)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=template)


def shifting():
    """Its decoder does not give back what was read: the second tokenisation moves what follows."""
    backend = byte_level(CHATML_SPECIAL)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("Chat:", "Chat again:")])
    template = "Chat: " + CHATML_TEMPLATE.replace("DEFAULT", "")
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", chat_template=template)


@pytest.fixture(scope="session")
def tokenizers():
    """Name to (tokenizer, placeholder token)."""
    return {
        "llama": (llama(), "<|reserved_special_token_87|>"),
        "chatml": (chatml(), "<|video_pad|>"),
        "chatml with a default system message": (chatml(DEFAULT_SYSTEM), "<|video_pad|>"),
        "shifting": (shifting(), "<|video_pad|>"),
    }


def a_sample(number, clips=1, words=3, response="The speaker says hello.", seconds=0.05, **changes):
    """A sample whose first clip's samples all are its number plus one, so that audio tells where it comes from."""
    waves = [np.full(int(seconds * 16_000), number + 1 + 1000 * clip, np.int16) for clip in range(clips)]
    content = " and ".join(["<start_audio><|AUDIO|><end_audio>"] * clips) + f" What is it? {number}"
    audios = [{"audio": f"{number}-{clip}.wav", "text": "hello " * words} for clip in range(clips)]
    fields = {
        "id": f"s{number}",
        "dataset": "test",
        "messages": [{"role": "user", "content": content, "audios": audios}],
        "response": response,
        "num_samples": [len(wave) for wave in waves],
        "audio": [encode_flac(wave) for wave in waves],
    }
    return schema.Sample(**(fields | changes))


def save_records(folder, samples, shards=3):
    """A directory of records, as `desta-jax records` leaves it."""
    folder.mkdir(parents=True)
    names, parts = [], []
    for shard, numbers in enumerate(np.array_split(np.arange(len(samples)), shards)):
        entries, offset = [], 0
        names.append(f"test-train.tfrecord-{shard:05d}-of-{shards:05d}")
        with open(folder / names[-1], "wb") as file:
            for number in numbers:
                record, text_length = schema.encode(samples[number])
                before, after = tfrecord.frame(record)
                file.write(before + record + after)
                offset += len(before)
                entries.append(index.entry_of(record, offset, text_length, samples[number].num_samples))
                offset += len(record) + len(after)
        parts.append(index.columns(entries))
    (folder / index.INDEX_FILE).write_bytes(index.join(names, parts).to_bytes())
    return str(folder)


@pytest.fixture(scope="session")
def make_sample():
    return a_sample


@pytest.fixture(scope="session")
def write_records():
    return save_records


@pytest.fixture(scope="session")
def prompts(tokenizers):
    return PromptBuilder(tokenizers["llama"][0], 5, tokenizers["llama"][1])
