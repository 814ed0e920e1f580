"""The real small pair on clips that eSpeak NG speaks: transcripts and answers as transformers gives them.

The weights are SmolLM2-135M-Instruct and Whisper base, as launch/real_models.py writes them; tests/run.sh says where.
The connector is a random one, in PyTorch and converted.
"""

import json

import numpy as np
import oracle
import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import nn

import spoken_clips
from desta_jax import generation
from desta_jax.audio.load import load_audio
from desta_jax.generation.transcribe import MAX_TOKENS
from desta_jax.weights.convert import convert

pytestmark = pytest.mark.real

LIMIT = 24
CLOSE = 0.01  # between the two best scores, where float32 rounding may turn a token, and with it all after


class RealReference(oracle.Reference):
    """transformers' models with their true weights."""

    def __init__(self, llm, whisper):
        nn.Module.__init__(self)
        torch.manual_seed(0)
        configs = transformers.WhisperConfig.from_pretrained(whisper), transformers.AutoConfig.from_pretrained(llm)
        self.build(*configs, tap_layers=(1, 2, 3, 5), prompt_size=16, num_layers=1)
        self.whisper = transformers.WhisperForConditionalGeneration.from_pretrained(whisper, dtype=torch.float32).eval()
        self.lm = transformers.AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32).eval()

    def save_adapter(self, folder):
        folder.mkdir()
        save_file({name: p.detach().clone() for name, p in self.trained().items()}, folder / "model.safetensors")
        config = {
            "model_type": "desta25",
            "connector_mode": "qformer_1",
            "qformer_num_hidden_layers": len(self.qformer.layer),
            "prompt_size": self.prompt_size,
            "llm_model_id": "llm",
            "encoder_model_id": "whisper",
            "target_layer_ids": list(self.tap_layers),
            "placeholder_token": "<reponame>",
            "audio_locator": "<|AUDIO|>",
        }
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    def transcribe(self, mel, tokenizer):
        written = self.whisper.generate(mel, max_new_tokens=MAX_TOKENS)
        return tokenizer.decode(written[0], skip_special_tokens=True).strip()

    def answer(self, prompt, mel):
        """Tokens, and by how much each was ahead of the next best."""
        tokens, slots = torch.tensor(prompt.tokens)[None].long(), torch.tensor(prompt.audio_slots)
        embeds = self.lm.get_input_embeddings()(tokens).clone()
        if prompt.clips:
            embeds[0, slots >= 0] = self.soft_tokens(mel).flatten(0, 1)[slots[slots >= 0].long()]
        said = self.lm.generate(
            inputs_embeds=embeds, attention_mask=torch.ones_like(tokens), max_new_tokens=LIMIT, do_sample=False,
            output_scores=True, return_dict_in_generate=True,
        )  # fmt: skip
        best = [score[0].topk(2).values for score in said.scores]
        return said.sequences[0].tolist(), [float(first - second) for first, second in best]


@pytest.fixture(scope="module")
def pair(real_folders, tmp_path_factory):
    """The reference in PyTorch, and our model converted from the same files."""
    reference = RealReference(*real_folders)
    root = tmp_path_factory.mktemp("real")
    convert(*real_folders, root / "model", adapter=reference.save_adapter(root / "adapter"))
    return reference, generation.load(root / "model", dtype="float32", cache_programs=False)


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Eight questions about clips in two languages, without transcripts."""
    folder = tmp_path_factory.mktemp("clips")
    spoken_clips.make(folder, ["en-us", "de"], sentences=0)
    rows = [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()][::2]
    for row in rows:
        (clip,) = row["messages"][1]["audios"]
        clip |= {"audio": str(folder / "audio" / clip["audio"]), "text": None}
    return rows


def assert_same_but_where_close(got, expected, margins):
    """Returns whether all tokens are the same."""
    for place, (one, other) in enumerate(zip(got, expected)):
        if one != other:
            assert margins[place] < CLOSE, f"token {place}: {one}, not {other}"
            return False
    assert len(got) == len(expected)
    return True


def test_transcripts_and_answers_are_transformers_own(pair, real_folders, rows):
    reference, model = pair
    tokenizer = transformers.AutoTokenizer.from_pretrained(real_folders[1])
    answers = model.generate([row["messages"] for row in rows], temperature=0, max_new_tokens=LIMIT, batch_size=4)
    same = []
    for row, answer in zip(rows, answers, strict=True):
        samples = load_audio(row["messages"][1]["audios"][0]["audio"])
        with torch.no_grad():
            mel = reference.extractor(samples, sampling_rate=16000, return_tensors="pt").input_features
            transcript = reference.transcribe(mel, tokenizer)
            assert answer.transcripts == (transcript,), row["id"]
            prompt = model.prompts.inference(row["messages"], [transcript])
            same.append(assert_same_but_where_close(answer.token_ids, *reference.answer(prompt, mel)))
    assert np.mean(same) > 0.7
    assert len({answer.text for answer in answers}) > 3, "the answers are all alike"


@pytest.mark.parametrize(
    "question", ["What is the capital of France?", "Write one sentence about the sea.", "Name three colours."]
)
def test_text_alone_is_answered_as_by_the_text_model(pair, question):
    reference, model = pair
    messages = [{"role": "user", "content": question}]
    (answer,) = model.generate(messages, temperature=0, max_new_tokens=LIMIT)
    ids = model.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    with torch.no_grad():
        said = reference.lm.generate(torch.tensor([ids]), max_new_tokens=LIMIT, do_sample=False)
    assert answer.token_ids == tuple(said[0, len(ids) :].tolist())
