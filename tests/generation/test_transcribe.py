"""Transcripts: the tokens that transformers' Whisper writes, by the rules of its generation config."""

import copy
import dataclasses

import pytest
import torch
import transformers

from desta_jax.audio.load import load_audio
from desta_jax.generation.listen import hear
from desta_jax.generation.transcribe import MAX_TOKENS, Rules
from desta_jax.generation.whisper import load_whisper

END, START, ENGLISH, SPANISH, TRANSLATE, TRANSCRIBE, PLAIN = 0, 1, 258, 259, 261, 262, 263  # above PLAIN: timestamps
SPECIAL = [START, ENGLISH, SPANISH, TRANSLATE, TRANSCRIBE, PLAIN]
ONE_LANGUAGE = {
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "pad_token_id": END,
    "no_timestamps_token_id": PLAIN,
    "suppress_tokens": [*SPECIAL, 40, 41],
    "begin_suppress_tokens": [END, 60],
    "is_multilingual": False,
}
MANY_LANGUAGES = ONE_LANGUAGE | {
    "is_multilingual": True,
    "lang_to_id": {"<|en|>": ENGLISH, "<|es|>": SPANISH},
    "task_to_id": {"translate": TRANSLATE, "transcribe": TRANSCRIBE},
    "task": "transcribe",
}
CONFIGS = {
    "one language": ONE_LANGUAGE,
    "the language is heard": MANY_LANGUAGES,
    "the language is told": MANY_LANGUAGES | {"language": "<|es|>", "task": "translate"},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_transcripts_are_the_tokens_of_transformers(case, load, made, clips):
    ear, samples = load().ear, [load_audio(clip) for clip in clips]
    frames = hear(ear.audio_lm, ear.encoder, ear.adapter, ear._batch(samples, 30))[1]
    rules = Rules.read(CONFIGS[case], made["llama"].whisper.config.to_dict())
    got = dataclasses.replace(ear.transcriber, rules=rules)(frames)[: len(clips)]

    whisper = copy.deepcopy(made["llama"].whisper)
    whisper.generation_config = transformers.GenerationConfig(**CONFIGS[case])
    extractor = transformers.WhisperFeatureExtractor(feature_size=80)
    mel = extractor([clip[: 30 * 16000] for clip in samples], sampling_rate=16000, return_tensors="pt").input_features
    with torch.no_grad():
        expected = [whisper.generate(row[None], max_new_tokens=MAX_TOKENS)[0].tolist() for row in mel]
    assert [[token for token in tokens if token != END] for tokens in got] == [
        [token for token in tokens if token not in (END, *SPECIAL)] for tokens in expected
    ]
    assert len({tuple(tokens) for tokens in got}) == len(clips), "all clips sound alike to it"


def test_a_multilingual_checkpoint_is_always_given_its_task():
    untold = {name: value for name, value in MANY_LANGUAGES.items() if name != "task"}
    assert Rules.read(untold, {}).forced == (TRANSCRIBE, PLAIN)
    forced = untold | {"forced_decoder_ids": [[1, None], [2, TRANSLATE]]}
    assert Rules.read(forced, {}).forced == (TRANSLATE, PLAIN)
    assert Rules.read(forced, {}).languages == (ENGLISH, SPANISH)


def test_a_language_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="language 'xx' is none of lang_to_id"):
        Rules.read(MANY_LANGUAGES | {"language": "xx"}, {})


def test_whisper_by_itself_hears_what_the_whole_model_hears(load, made, clips):
    samples = [load_audio(clip) for clip in clips]
    alone = load_whisper(made["llama"].folder, dtype="float32", cache_programs=False)
    whole = load().ear.listen(samples, [True] * len(samples))
    assert alone.transcribe(samples) == [heard.transcript for heard in whole]
    assert alone.transcribe(samples[:1]) == [whole[0].transcript]


def test_whisper_by_itself_computes_in_no_other_dtype_than_the_whole_model(made):
    with pytest.raises(ValueError, match="dtype: 'float16' is none of"):
        load_whisper(made["llama"].folder, dtype="float16", cache_programs=False)
