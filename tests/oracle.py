"""The model again, in PyTorch, from transformers' own modules: what ours must compute."""

import json

import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.bert.modeling_bert import BertEncoder

from desta_jax.batch import IGNORED, empty_batch
from desta_jax.weights.convert import convert
from desta_jax.weights.folder import ModelFolder

VOCABULARY = 96
FRAMES = 60  # of the encoder: 1.2 s of audio
SAMPLES = FRAMES * 320
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DECODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 1,
}
FAMILIES = {
    "llama": lambda: transformers.LlamaConfig(**DECODER, tie_word_embeddings=False, rope_parameters=LLAMA3_ROPE),
    "llama-tied": lambda: transformers.LlamaConfig(**DECODER, tie_word_embeddings=True),
    "qwen2": lambda: transformers.Qwen2Config(**DECODER, tie_word_embeddings=False),
    "qwen3": lambda: transformers.Qwen3Config(**DECODER, tie_word_embeddings=True, head_dim=24),
}


def write_tokenizer(folder):
    import tokenizers

    words = {f"w{i}": i for i in range(VOCABULARY - 2)}
    words |= {"<unk>": VOCABULARY - 2, "<|endoftext|>": VOCABULARY - 1}  # Qwen2's tokenizer would add the latter
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>", eos_token="w1")
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(folder)


def spread(module, scale=0.3):
    """Weights that leave no bias at zero and no norm at one, exact in bfloat16, as the language model's are stored."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(std=scale)
            parameter.copy_(parameter.bfloat16().float())
        for name, parameter in module.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1)
                parameter.copy_(parameter.bfloat16().float())
    return module.eval()


class Reference(nn.Module):
    """A frozen Whisper encoder, the connector as the PyTorch reference builds it, and a frozen decoder."""

    def __init__(self, family, tap_layers=(0, 2, 3), prompt_size=5, num_layers=2):
        super().__init__()
        torch.manual_seed(0)
        whisper = transformers.WhisperConfig(
            vocab_size=VOCABULARY, num_mel_bins=80, d_model=32, encoder_layers=4, decoder_layers=1,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
            max_source_positions=FRAMES, max_target_positions=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
            decoder_start_token_id=1,
        )  # fmt: skip
        self.build(whisper, FAMILIES[family](), tap_layers, prompt_size, num_layers)
        spread(self.whisper, 0.1)
        spread(self.lm)

    def build(self, whisper, lm, tap_layers, prompt_size, num_layers, dropout=0.0):
        """The modules, by transformers' configs of the two frozen models."""
        width = whisper.d_model
        self.whisper = transformers.WhisperForConditionalGeneration(whisper).eval()
        self.lm = transformers.AutoModelForCausalLM.from_config(lm).eval()
        for frozen in (self.whisper, self.lm):
            frozen.requires_grad_(False)
        self.tap_layers, self.prompt_size, self.samples = tap_layers, prompt_size, 320 * whisper.max_source_positions
        self.layer_prompts = nn.ParameterList(nn.Parameter(torch.randn(1, prompt_size, width)) for _ in tap_layers)
        self.layer_weights = nn.Parameter(torch.randn(prompt_size, len(tap_layers)))
        bert = transformers.BertConfig(
            num_hidden_layers=num_layers, num_attention_heads=whisper.encoder_attention_heads, hidden_size=width,
            add_cross_attention=True, is_decoder=True, attn_implementation="eager", hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )  # fmt: skip
        self.qformer = BertEncoder(bert)
        self.proj = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, lm.hidden_size))
        self.extractor = transformers.WhisperFeatureExtractor(feature_size=whisper.num_mel_bins)
        self.extractor.n_samples, self.extractor.nb_max_frames = self.samples, self.samples // 160

    def trained(self):
        """Names and parameters of the connector, as the reference saves them."""
        parts = {"layer_prompts": self.layer_prompts, "qformer": self.qformer, "proj": self.proj}
        named = {f"{part}.{name}": p for part, module in parts.items() for name, p in module.named_parameters()}
        named["layer_weights"] = self.layer_weights
        return {f"perception.connector.{name}": parameter for name, parameter in named.items()}

    def mel(self, audio):
        """[clips, mels, frames] of int16 clips."""
        clips = [clip.astype(np.float32) / 32768 for clip in audio]
        return self.extractor(clips, sampling_rate=16000, return_tensors="pt", max_length=self.samples).input_features

    def taps(self, mel):
        """The residual stream after each tapped layer, by hooks: [taps][clips, frames, width]."""
        encoder, heard = self.whisper.model.encoder, {}
        handles = [
            encoder.layers[i].register_forward_hook(
                lambda _, __, out, i=i: heard.__setitem__(i, out[0] if isinstance(out, tuple) else out)
            )
            for i in self.tap_layers
        ]
        with torch.no_grad():
            encoder(mel)
        for handle in handles:
            handle.remove()
        return [heard[i] for i in self.tap_layers]

    def soft_tokens(self, mel):
        """[clips, prompt_size, width of the decoder]"""
        asked = [
            self.qformer(prompts.expand(len(mel), -1, -1), encoder_hidden_states=tap).last_hidden_state
            for prompts, tap in zip(self.layer_prompts, self.taps(mel))
        ]
        mixed = (torch.stack(asked, 2) * self.layer_weights.softmax(-1)[None, :, :, None]).sum(2)
        return self.proj(mixed)

    def logits(self, batch):
        """[rows, tokens, vocabulary] of an unpacked Batch."""
        rows, clips, samples = batch.audio.shape
        device = self.layer_weights.device
        soft = self.soft_tokens(self.mel(batch.audio.reshape(-1, samples)).to(device))
        soft = soft.reshape(rows, clips * self.prompt_size, -1)
        embedded = self.lm.get_input_embeddings()(torch.tensor(batch.tokens, device=device).long()).clone()
        heard = np.nonzero(batch.audio_slots != IGNORED)
        embedded[heard] = soft[heard[0], batch.audio_slots[heard]].to(embedded.dtype)
        mask = torch.tensor(batch.segments > 0, device=device).long()
        return self.lm(inputs_embeds=embedded, attention_mask=mask).logits

    def loss(self, batch):
        """Mean over the batch's labels."""
        logits = self.logits(batch)
        rows, columns = np.nonzero(batch.labels != IGNORED)
        at = logits[rows, batch.label_positions[rows, columns]]
        return nn.functional.cross_entropy(at, torch.tensor(batch.labels[rows, columns], device=at.device).long())

    def save(self, folder):
        """Hugging Face folders of its parts, and the adapter's; returns (llm, whisper, adapter)."""
        from safetensors.torch import save_file

        llm, whisper, adapter = (folder / name for name in ("llm", "whisper", "adapter"))
        self.lm.save_pretrained(llm)
        self.whisper.save_pretrained(whisper)
        self.extractor.save_pretrained(whisper)
        write_tokenizer(llm)
        write_tokenizer(whisper)
        adapter.mkdir()
        save_file(
            {k: v.detach().clone().contiguous() for k, v in self.trained().items()}, adapter / "model.safetensors"
        )
        config = {
            "model_type": "desta25",
            "connector_mode": "qformer_1",
            "qformer_num_hidden_layers": len(self.qformer.layer),
            "prompt_size": self.prompt_size,
            "llm_model_id": str(llm),
            "encoder_model_id": str(whisper),
            "target_layer_ids": list(self.tap_layers),
        }
        (adapter / "config.json").write_text(json.dumps(config))
        return llm, whisper, adapter

    def convert(self, folder):
        """The converted folder of it all."""
        llm, whisper, adapter = self.save(folder)
        return ModelFolder(convert(llm, whisper, folder / "converted", adapter=adapter))


def random_batch(rows=3, clips=2, tokens=40, labels=9, prompt_size=5, seed=0):
    """An unpacked batch of every kind of row in turn: one clip, two clips, no clip; some padding."""
    rng = np.random.default_rng(seed)
    batch = empty_batch(rows, clips, SAMPLES, tokens, labels)
    for row in range(rows):
        heard, length = min((1, 2, 0)[row % 3], clips), tokens - 3 * (row % 3)
        batch.tokens[row, :length] = rng.integers(2, VOCABULARY, length)
        batch.positions[row, :length] = np.arange(length)
        batch.segments[row, :length] = 1
        for clip in range(heard):
            start = 3 + clip * (prompt_size + 4)
            batch.audio_slots[row, start : start + prompt_size] = clip * prompt_size + np.arange(prompt_size)
            batch.audio[row, clip] = speechlike(rng)
        count = labels - row % 2
        answer = length - count
        batch.labels[row, :count] = batch.tokens[row, answer:length]
        batch.label_positions[row, :count] = np.arange(answer, length) - 1
    return batch


def speechlike(rng, samples=SAMPLES):
    """A few gliding tones in noise, int16."""
    time = np.arange(samples) / 16000
    tones = sum(np.sin(2 * np.pi * rng.uniform(90, 3000) * time * (1 + 0.1 * np.sin(6 * time))) for _ in range(4))
    return (2000 * tones + 200 * rng.normal(size=samples)).astype(np.int16)
