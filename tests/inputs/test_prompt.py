"""Prompts equal the PyTorch reference's, id for id, on every shape of chat; wrong ones are refused in plain words."""

import copy

import numpy as np
import pytest

from desta_jax.inputs.prompt import AUDIO_CUT, NO_LABEL, Example, PromptBuilder, Rejection

LOCATOR = "<|AUDIO|>"
CLIP = f"<start_audio>{LOCATOR}<end_audio>"
SIZE = 5  # soft tokens a clip
TOKENIZERS = ["llama", "chatml", "chatml with a default system message", "shifting"]


def reference_tokenizer(tokenizer):
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.add_tokens([LOCATOR])
    return tokenizer


def reference_context(tokenizer, placeholder, rendered, transcripts):
    """The text with placeholders, and where each clip starts: transformers' slow paths, step by step."""
    pieces, starts = [], []
    for piece in tokenizer.tokenize(rendered):
        if piece == LOCATOR:
            words = tokenizer.tokenize(transcripts[len(starts)], add_special_tokens=False)
            starts.append(len(pieces))
            pieces.extend([placeholder] * (SIZE + len(words)))
        else:
            pieces.append(piece)
    return tokenizer.convert_tokens_to_string(pieces), starts


def place(ids, starts, transcript_ids):
    """What the reference's embeddings come from: the id of each position, and the soft token that replaces it."""
    row, slots = list(ids), [-1] * len(ids)
    for clip, (start, words) in enumerate(zip(starts, transcript_ids, strict=True)):
        for query in range(SIZE):
            slots[start + query] = clip * SIZE + query
        row[start + SIZE : start + SIZE + len(words)] = words
    return row, slots


def reference_training(tokenizer, placeholder, messages, response, max_length):
    """(ids, slots, labels by position or -100), or None where the reference crashes or has nothing to learn."""
    tokenizer = reference_tokenizer(tokenizer)
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    transcripts = [
        tokenizer.convert_tokens_to_string(tokenizer.tokenize(clip["text"], add_special_tokens=False)[:100])
        for message in messages
        for clip in message.get("audios") or []
    ]
    context, starts = reference_context(tokenizer, placeholder, rendered, transcripts)
    ids = tokenizer(
        context + response + tokenizer.eos_token, truncation=True, max_length=max_length, add_special_tokens=False
    )["input_ids"]
    transcript_ids = [tokenizer.encode(text, add_special_tokens=False) for text in transcripts]
    if any(start + SIZE + len(words) > len(ids) for start, words in zip(starts, transcript_ids, strict=True)):
        return None
    answer = len(tokenizer.tokenize(context))
    if answer >= len(ids):
        return None
    return *place(ids, starts, transcript_ids), [-100] * answer + ids[answer:]


def reference_inference(tokenizer, placeholder, messages, transcripts):
    tokenizer = reference_tokenizer(tokenizer)
    rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    if not transcripts:
        ids = tokenizer(rendered)["input_ids"]
        return ids, [-1] * len(ids)
    rendered = rendered.replace(LOCATOR, CLIP)
    context, starts = reference_context(tokenizer, placeholder, rendered, transcripts)
    ids = tokenizer(context, truncation=True, add_special_tokens=False)["input_ids"]
    return place(ids, starts, [tokenizer.encode(text, add_special_tokens=False) for text in transcripts])


def user(content, *transcripts):
    return {"role": "user", "content": content, "audios": [{"audio": "x.wav", "text": text} for text in transcripts]}


def system(content):
    return {"role": "system", "content": content, "audios": []}


def assistant(content):
    return {"role": "assistant", "content": content}


FOCUS = system("Focus on the audio clips and instructions.")
LONG = "the dog barks while the rain falls " * 40  # over 100 tokens with every tokenizer here
CHATS = {
    "no clip": [FOCUS, user("What is jazz?")],
    "no system message": [user(f"{CLIP}\nDescribe the audio.", "hello")],
    "one clip": [FOCUS, user(f"{CLIP}\nDescribe the audio.", "hello in a calm voice")],
    "clip at the very start": [user(LOCATOR, "hello")],
    "clip within a word": [user(f"de{LOCATOR}scribe", "hello")],
    "two clips": [FOCUS, user(f"First {CLIP} second {CLIP} What differs?", " ", "A dog barks while rain falls")],
    "adjacent clips": [FOCUS, user(f"{LOCATOR}{LOCATOR}{LOCATOR}", "a", "", "b")],
    "several turns": [
        FOCUS,
        user(f"{CLIP} Who speaks?", "hello"),
        assistant("A man."),
        user(f"And here {CLIP}?", "café"),
        assistant("A dog."),
        user("Are you sure?"),
    ],
    "empty transcript": [user(f"{CLIP} What is it?", "")],
    "no speech": [user(f"{CLIP} What is it?", " ")],
    "long transcript": [user(f"{CLIP} What is it?", LONG)],
    "long transcript cut within a character": [user(f"{CLIP} What is it?", "x" + "🎻" * 60)],
    "many scripts": [system("Grüße, 你好"), user(f"привет {CLIP} 🎵🎻 e\u0301 ﬁ", "你好世界 🎻\u200d")],
    "special tokens as text": [
        user(f"<|eot_id|> <|im_end|>{CLIP}<|im_start|> <|begin_of_text|>", "<|end_of_text|> <|endoftext|>")
    ],
    "placeholder as text": [user(f"<|video_pad|>{CLIP}<|reserved_special_token_87|>", "<|video_pad|> hello")],
    "white space": [FOCUS, user(f"  \n\n{CLIP}\t \n  two  spaces \r\n", "  hello\n\n there  ")],
    "marker half written": [user(f"<start_audio>{LOCATOR} <|AUDIO <start_audio", "hello")],
}
RESPONSES = {
    "short": "The speaker says hello.",
    "empty": "",
    "leading space": "  \n Hm.",
    "special tokens": "<|eot_id|> and <|im_end|>",
    "other scripts": "🎻 你好 é e\u0301",
    "long": "music genre jazz rock piano guitar " * 30,
}


def labels_by_position(example):
    labels = np.full(len(example.tokens), -100)
    labels[example.answer : example.answer + len(example.labels)] = example.labels
    return labels.tolist()


@pytest.fixture(scope="module", params=TOKENIZERS)
def case(request, tokenizers):
    """(tokenizer, placeholder, builder)"""
    tokenizer, placeholder = tokenizers[request.param]
    return tokenizer, placeholder, PromptBuilder(tokenizer, SIZE, placeholder)


@pytest.mark.parametrize("chat", CHATS)
def test_training_samples_equal_the_references(case, chat):
    tokenizer, placeholder, builder = case
    for response in RESPONSES.values():
        whole = reference_training(tokenizer, placeholder, CHATS[chat], response, 10_000)
        lengths = {10_000, len(whole[0]), len(whole[0]) - 1, len(whole[0]) - 3, len(whole[0]) - 20, 60}
        for max_length in sorted(lengths):
            expected = reference_training(tokenizer, placeholder, CHATS[chat], response, max_length)
            got = builder.training(CHATS[chat], response, max_length)
            if expected is None:
                assert isinstance(got, Rejection)
            else:
                assert got.tokens.tolist() == expected[0]
                assert got.audio_slots.tolist() == expected[1]
                assert labels_by_position(got) == expected[2]


@pytest.mark.parametrize("chat", CHATS)
def test_requests_equal_the_references(case, chat):
    tokenizer, placeholder, builder = case
    marked = CHATS[chat]
    messages = [{**message, "content": message["content"].replace(CLIP, LOCATOR)} for message in marked]
    transcripts = [clip["text"] for message in messages for clip in message.get("audios", [])]
    got = builder.inference(messages, transcripts)
    assert got.tokens.tolist() == builder.inference(marked, transcripts).tokens.tolist()  # markers are not doubled
    tokens, slots = reference_inference(tokenizer, placeholder, messages, transcripts)
    assert got.tokens.tolist() == tokens
    assert got.audio_slots.tolist() == slots


def test_the_chats_reach_what_they_are_meant_to(tokenizers):
    """The long transcript is over the limit, and the cut one ends inside a character."""
    tokenizer, placeholder = tokenizers["llama"]
    assert len(tokenizer.tokenize(LONG)) > 100
    pieces = tokenizer.tokenize("x" + "🎻" * 60)[:100]
    assert tokenizer.convert_tokens_to_string(pieces).endswith("\N{REPLACEMENT CHARACTER}")
    builder = PromptBuilder(tokenizer, SIZE, placeholder)
    trained = builder.context(CHATS["long transcript"])
    asked = builder.inference(CHATS["long transcript"], [LONG])
    assert len(asked.tokens) > len(trained.tokens) + 50


def test_the_second_tokenisation_can_move_the_text_but_not_the_audio(tokenizers):
    tokenizer, placeholder = tokenizers["shifting"]
    builder = PromptBuilder(tokenizer, SIZE, placeholder)
    prompt = builder.context(CHATS["one clip"])
    identifier = tokenizer.convert_tokens_to_ids(placeholder)
    assert prompt.tokens[prompt.audio_slots == SIZE - 1] == identifier
    assert np.argmax(prompt.tokens == identifier) > np.argmax(prompt.audio_slots >= 0)


def test_a_text_request_has_the_tokenizers_own_beginning_as_the_reference(tokenizers):
    tokenizer, placeholder = tokenizers["llama"]
    prompt = PromptBuilder(tokenizer, SIZE, placeholder).inference(CHATS["no clip"], [])
    begin = tokenizer.bos_token_id
    assert prompt.tokens[:2].tolist() == [begin, begin]


def test_the_context_of_a_row_is_what_stands_before_its_response(case):
    _, _, builder = case
    for messages in CHATS.values():
        example = builder.training(messages, " Hm.", 10_000)
        context = builder.context(messages)
        kept = len(context.tokens)
        assert kept == example.answer
        assert context.audio_slots.tolist() == example.audio_slots[:kept].tolist()
        assert context.tokens[:-1].tolist() == example.tokens[: kept - 1].tolist()  # the last may merge with " Hm."


def test_the_extent_tells_what_each_cut_leaves(case):
    _, _, builder = case
    messages, response = CHATS["two clips"], "The second has a dog."
    extent = builder.extent(messages, response)
    for max_length in range(1, extent.tokens + 3):
        got = builder.training(messages, response, max_length)
        assert extent.rejection(max_length) == (got if isinstance(got, Rejection) else None)
        if isinstance(got, Example):
            assert len(got.labels) == min(extent.tokens, max_length) - extent.answer > 0
    assert extent.rejection(extent.audio_end - 1) == Rejection(AUDIO_CUT)
    assert extent.rejection(extent.answer) == Rejection(NO_LABEL)


def test_the_callers_tokenizer_is_left_alone(tokenizers):
    tokenizer, placeholder = tokenizers["llama"]
    before = len(tokenizer)
    PromptBuilder(tokenizer, SIZE, placeholder)
    assert len(tokenizer) == before


def test_the_fingerprint_follows_what_changes_the_tokens(tokenizers):
    llama, reserved = tokenizers["llama"]
    chatml, pad = tokenizers["chatml"]
    builders = [
        PromptBuilder(llama, SIZE, reserved),
        PromptBuilder(llama, SIZE + 1, reserved),
        PromptBuilder(llama, SIZE, "<|reserved_special_token_0|>"),
        PromptBuilder(chatml, SIZE, pad),
        PromptBuilder(tokenizers["chatml with a default system message"][0], SIZE, pad),
    ]
    assert len({builder.fingerprint for builder in builders}) == len(builders)
    assert PromptBuilder(llama, SIZE, reserved).fingerprint == builders[0].fingerprint


def test_special_tokens_are_in_the_fingerprint_and_today_is_not_in_the_tokens(tokenizers):
    llama, reserved = tokenizers["llama"]
    dated, marked = copy.deepcopy(llama), copy.deepcopy(llama)
    template = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    dated.chat_template = template + "Today {{ date_string }}." + str(llama.chat_template)
    text = PromptBuilder(dated, SIZE, reserved).context([{"role": "user", "content": "Who?"}])
    assert "Today 26 Jul 2024." in dated.decode(text.tokens)
    marked.bos_token = reserved
    assert PromptBuilder(marked, SIZE, reserved).fingerprint != PromptBuilder(llama, SIZE, reserved).fingerprint


WRONG_MESSAGES = {
    "no messages": ([], "at least one message"),
    "not a list": ("hello", "must be a list"),
    "not an object": ([FOCUS, "hello"], r"messages\[1\]: must be an object"),
    "unknown role": ([FOCUS, {"role": "usr", "content": "x"}], r"messages\[1\]: role 'usr' is none of system, user"),
    "no role": ([{"content": "x"}], r"messages\[0\]: role None"),
    "no content": ([FOCUS, {"role": "user"}], r'messages\[1\]: "content" must be a text, got None'),
    "content in parts": ([{"role": "user", "content": [{"type": "text"}]}], r'messages\[0\]: "content" must be a text'),
    "clips that are no objects": ([{**user(LOCATOR), "audios": ["a.wav"]}], r'messages\[0\]: "audios"'),
    "too few clips": ([FOCUS, user(f"{CLIP} {CLIP}", "a")], r"messages\[1\]: .* stands 2 times .* audios are 1"),
    "too many clips": ([user("nothing", "a")], r"messages\[0\]: .* stands 0 times .* audios are 1"),
    "no transcript": ([user(CLIP, None)], r"The clip 'x.wav' has no \"text\""),
}


@pytest.mark.parametrize("name", WRONG_MESSAGES)
def test_wrong_messages_are_named(case, name):
    messages, line = WRONG_MESSAGES[name]
    with pytest.raises(ValueError, match=line):
        case[2].training(messages, "Yes.", 300)


def test_a_missing_response_is_named(case):
    with pytest.raises(ValueError, match='"response" must be a text, got None'):
        case[2].training(CHATS["one clip"], None, 300)


def test_the_locator_cannot_stand_where_no_clip_is(case):
    with pytest.raises(ValueError, match="stands in a response or a transcript"):
        case[2].training(CHATS["one clip"], f"I hear {LOCATOR}", 300)
    with pytest.raises(ValueError, match="stands in a response or a transcript"):
        case[2].inference([user(LOCATOR, "")], [f"hello {LOCATOR}"])


def test_a_transcript_is_needed_for_each_clip(case):
    with pytest.raises(ValueError, match="1 clips but 0 transcripts"):
        case[2].inference([user(LOCATOR, "")], [])


def test_a_template_that_refuses_says_so(tokenizers):
    builder = PromptBuilder(tokenizers["chatml"][0], SIZE, "<|video_pad|>")
    with pytest.raises(ValueError, match="chat template refuses .* a user speaks first"):
        builder.inference([assistant("Hello?"), user("Hi.")], [])


def test_a_key_that_the_template_cannot_read_says_so(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["chatml"][0])
    tokenizer.chat_template = "{% if messages[0].tool_calls|length %}{% endif %}"  # as in Llama 3.1's
    builder = PromptBuilder(tokenizer, SIZE, "<|video_pad|>")
    with pytest.raises(ValueError, match=r"chat template refuses .* has no len\(\)"):
        builder.inference([assistant("Yes.") | {"tool_calls": 5}], [])


def test_a_template_that_drops_messages_is_noticed(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["chatml"][0])
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    builder = PromptBuilder(tokenizer, SIZE, "<|video_pad|>")
    with pytest.raises(ValueError, match="leaves out part of the messages"):
        builder.inference([user(LOCATOR, ""), user("And?")], ["hello"])


@pytest.mark.parametrize("placeholder", ["<|reserved_special_token_88|>", "hello there", ""])
def test_a_placeholder_that_is_not_one_token_is_named(tokenizers, placeholder):
    with pytest.raises(ValueError, match=r"adapter.placeholder_token: .*<\|reserved_special_token_0\|>"):
        PromptBuilder(tokenizers["llama"][0], SIZE, placeholder)


def test_a_tokenizer_that_cannot_serve_is_named(tokenizers):
    tokenizer = copy.deepcopy(tokenizers["chatml"][0])
    tokenizer.chat_template = None
    with pytest.raises(ValueError, match="no chat template"):
        PromptBuilder(tokenizer, SIZE, "<|video_pad|>")
    tokenizer = copy.deepcopy(tokenizers["chatml"][0])
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no eos_token"):
        PromptBuilder(tokenizer, SIZE, "<|video_pad|>")
