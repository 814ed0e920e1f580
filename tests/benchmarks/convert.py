"""Conversion against copying the same bytes, and its peak memory.

    python tests/benchmarks/convert.py                     # a model of 1 GB
    python tests/benchmarks/convert.py --model llama-8b    # Llama-3.1-8B's shapes: needs 50 GB of disk

Both read files that the system does not hold in memory, and both end when their bytes are on the disk.
"""

import argparse
import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time

import numpy as np
import tokenizers
import transformers

from desta_jax.models.shapes import DecoderShape, WhisperShape
from desta_jax.weights import names, tensors

LLAMA = {
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 131072,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}
MODELS = {
    "small": LLAMA
    | {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 16}
    | {"num_attention_heads": 16, "num_key_value_heads": 4},
    "llama-8b": LLAMA
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32}
    | {"num_attention_heads": 32, "num_key_value_heads": 8},
}
WHISPER = {
    "model_type": "whisper",
    **{"d_model": 64, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 128, "num_mel_bins": 80},
    **{"decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 128, "vocab_size": 64},
    **{"max_source_positions": 1500, "max_target_positions": 64},
    **{"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0, "decoder_start_token_id": 0},
}
SHARD_BYTES = 5 * 10**9
CONVERT = "import sys; from desta_jax.weights.convert import convert; convert(*sys.argv[1:4])"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="small")
    parser.add_argument("--folder", default=None, help="where to work; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as scratch:
        compare(pathlib.Path(scratch), MODELS[arguments.model])


def compare(scratch: pathlib.Path, config: dict) -> None:
    llm, encoder = scratch / "llm", scratch / "whisper"
    write_model(llm, config, names.decoder_table(DecoderShape.from_hf(config)).rules)
    shape = WhisperShape.from_hf(WHISPER)
    write_model(encoder, WHISPER, names.whisper_encoder_rules(shape) + names.whisper_decoder_rules(shape))
    size = sum(file.stat().st_size for file in llm.glob("*.safetensors"))
    forget(llm)
    copying = seconds(lambda: copy(llm, scratch / "copy"))
    shutil.rmtree(scratch / "copy")
    forget(llm)
    command = [sys.executable, "-c", CONVERT, str(llm), str(encoder), str(scratch / "out")]
    converting = seconds(lambda: subprocess.run(command, check=True))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"bytes      {size / 1e9:8.2f} GB in {len(list(llm.glob('*.safetensors')))} files")
    print(f"copying    {copying:8.1f} s   {size / copying / 1e6:6.0f} MB/s")
    print(
        f"converting {converting:8.1f} s   {size / converting / 1e6:6.0f} MB/s, at most {peak / 2**30:.2f} GiB resident"
    )
    print(f"ratio      {converting / copying:8.2f}")


def write_model(folder: pathlib.Path, config: dict, rules) -> None:
    """A Hugging Face folder with random bfloat16 weights, in several files if it is large."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder)
    shapes = {name: rule.foreign_shape for rule in rules for name in rule.names}
    shards: list[dict] = [{}]
    for name, shape in shapes.items():
        if shards[-1] and sum(2 * int(np.prod(s)) for s in [*shards[-1].values(), shape]) > SHARD_BYTES:
            shards.append({})
        shards[-1][name] = shape
    if len(shards) == 1:
        return write_shard(folder / tensors.WEIGHTS, shards[0])
    files = [f"model-{i + 1:05}-of-{len(shards):05}.safetensors" for i in range(len(shards))]
    for file, shard in zip(files, shards):
        write_shard(folder / file, shard)
    weight_map = {name: file for file, shard in zip(files, shards) for name in shard}
    (folder / tensors.INDEX).write_text(json.dumps({"weight_map": weight_map}))


def write_shard(file: pathlib.Path, shapes: dict) -> None:
    noise = (np.random.default_rng(0).standard_normal(2**22, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for start in range(0, end, noise.nbytes):
            stream.write(noise.tobytes()[: end - start])


def write_tokenizer(folder: pathlib.Path) -> None:
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=model, unk_token="<unk>")
    tokenizer.chat_template = "{{ messages }}"
    tokenizer.save_pretrained(folder)


def forget(folder: pathlib.Path) -> None:
    """Makes the system write the files out and drop them from its memory."""
    for file in folder.glob("*.safetensors"):
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def copy(source: pathlib.Path, target: pathlib.Path) -> None:
    target.mkdir()
    for file in sorted(source.glob("*.safetensors")):
        shutil.copyfile(file, target / file.name)
    for file in target.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def seconds(function) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
