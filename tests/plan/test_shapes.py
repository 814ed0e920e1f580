"""What is known of a run without weights and records."""

import pytest

from desta_jax.config import make_config
from desta_jax.models.shapes import DecoderShape, WhisperShape
from desta_jax.plan.shapes import AQA5M_SAMPLES, ENCODERS, LLMS, find_models, find_work

PARAMETERS = {  # billions, with embeddings, as the models' pages give them
    "Llama-3.1-8B-Instruct": 8.03,
    "Llama-3.2-1B-Instruct": 1.24,
    "Llama-3.2-3B-Instruct": 3.21,
    "Qwen2.5-0.5B-Instruct": 0.494,
    "Qwen2.5-1.5B-Instruct": 1.54,
    "Qwen2.5-3B-Instruct": 3.09,
    "Qwen2.5-7B-Instruct": 7.62,
    "Qwen3-0.6B": 0.596,
    "Qwen3-1.7B": 1.72,
    "Qwen3-4B": 4.02,
    "Qwen3-8B": 8.19,
    "SmolLM2-135M-Instruct": 0.135,
    "SmolLM2-360M-Instruct": 0.362,
    "SmolLM2-1.7B-Instruct": 1.71,
}
ENCODER_PARAMETERS = {  # millions, of the blocks: 12 d^2 a layer
    "whisper-tiny": 7.08,
    "whisper-base": 18.9,
    "whisper-small": 84.9,
    "whisper-medium": 302.0,
    "whisper-large-v3": 629.1,
    "whisper-large-v3-turbo": 629.1,
}


@pytest.mark.parametrize("name", sorted(LLMS))
def test_a_known_language_model_has_as_many_parameters_as_its_page_says(name):
    shape = DecoderShape.from_hf(LLMS[name])
    total = shape.parameters + (0 if shape.tied else shape.vocabulary * shape.width)
    assert total / 1e9 == pytest.approx(PARAMETERS[name], rel=0.005)


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_known_encoder_has_its_parameters(name):
    shape = WhisperShape.from_hf(ENCODERS[name])
    parameters = shape.encoder_layers * (4 * shape.width**2 + 2 * shape.width * shape.encoder_mlp_width)
    assert parameters / 1e6 == pytest.approx(ENCODER_PARAMETERS[name], rel=0.005)


def test_models_are_found_by_their_hub_names_or_folders(micro, micro_config):
    assert find_models(micro_config).llm_config["hidden_size"] == 64
    named = make_config(micro | {"model.llm": "meta-llama/Llama-3.1-8B", "model.encoder": "openai/whisper-large-v3"})
    models = find_models(named)
    assert (models.llm_config["hidden_size"], models.whisper_config["d_model"]) == (4096, 1280)


def test_an_unknown_model_says_what_to_do(micro):
    config = make_config(micro | {"model.llm": "somebody/Parrot-9B", "model.checkpoint": "nowhere"})
    with pytest.raises(
        ValueError, match=r"model.llm: nowhere is not on this disk, and .*'somebody/Parrot-9B'.*convert"
    ):
        find_models(config)


def test_a_row_holds_what_the_config_allows(micro):
    config = make_config(micro | {"data.max_length": 300, "adapter.prompt_size": 64, "train.steps": 0})
    work = find_work(config, find_models(config))
    assert (work.shapes.rows, work.shapes.clips, work.shapes.tokens, work.shapes.labels) == (8, 1, 304, 240)
    assert work.steps == 5 * AQA5M_SAMPLES // 8
    assert "an epoch is DeSTA-AQA5M's 4,963,845 samples" in work.assumptions


def test_packed_rows(micro):
    config = make_config(micro | {"data.pack": True, "data.clips_per_row": 4})
    shapes = find_work(config, find_models(config)).shapes
    assert (shapes.rows, shapes.clips, shapes.tokens) == (2, 4, 4 * 64)


def test_rows_without_room_for_text_are_refused(micro):
    packed = {"data.pack": True, "data.clips_per_row": 8, "adapter.prompt_size": 16, "train.batch_size": 8}
    config = make_config(micro | packed | {"data.row_length": 80})
    with pytest.raises(ValueError, match="data.row_length: 80 tokens leave no room beside the 128 soft ones"):
        find_work(config, find_models(config))
