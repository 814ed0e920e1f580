"""Small random models as transformers saves them."""

import pathlib

import pytest
import tokenizers
import torch
import transformers
from oracle import FAMILIES, VOCABULARY

CHAT_TEMPLATE = "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}{% endfor %}"


def write_tokenizer(folder, chat_template=CHAT_TEMPLATE, size=40):
    words = {f"w{i}": i for i in range(size - 1)} | {"<unk>": size - 1}
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token="w1")
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(folder)


def randomise(model):
    """transformers leaves biases zero and norms one, which would hide a mix-up."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model


def write_decoder(folder, family, dtype=torch.float32, **options):
    torch.manual_seed(0)
    model = randomise(transformers.AutoModelForCausalLM.from_config(FAMILIES[family]())).to(dtype)
    model.save_pretrained(folder, **options)
    write_tokenizer(folder)
    return model


def write_whisper(folder, dtype=torch.float16):
    torch.manual_seed(1)
    config = transformers.WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=8,
        d_model=32,
        encoder_layers=4,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=56,
        max_source_positions=20,
        max_target_positions=12,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=1,
    )
    model = randomise(transformers.WhisperForConditionalGeneration(config)).to(dtype)
    model.save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    write_tokenizer(folder, chat_template=None)
    return model


@pytest.fixture(scope="session")
def save_decoder():
    """The function that writes a folder of a family, and returns the torch model."""
    return write_decoder


@pytest.fixture(scope="session")
def save_tokenizer():
    return write_tokenizer


@pytest.fixture(scope="session")
def decoders(tmp_path_factory):
    """Folder and torch model by family."""
    made = {}
    for family in FAMILIES:
        folder = tmp_path_factory.mktemp("llm") / family
        made[family] = (folder, write_decoder(folder, family))
    return made


@pytest.fixture(scope="session")
def whisper(tmp_path_factory) -> tuple[pathlib.Path, torch.nn.Module]:
    folder = tmp_path_factory.mktemp("encoder") / "whisper"
    return folder, write_whisper(folder)
