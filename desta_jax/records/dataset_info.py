"""features.json and dataset_info.json, with which TensorFlow Datasets knows the shards; made without TensorFlow."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence

import numpy as np

FILES = ("features.json", "dataset_info.json")  # in the order in which they are put in place
VERSION = "1.0.0"
DESCRIPTION = (
    "Audio question answering rows for training audio language models: 16 kHz mono FLAC clips, a chat that speaks "
    "of them, and the response of a language model that read their descriptions in place of the audio."
)


def features():
    """What a record holds, in TensorFlow Datasets' words."""
    import tensorflow_datasets as tfds

    def text(doc: str):
        return tfds.features.Text(doc=doc)

    flac = tfds.features.Tensor(shape=(), dtype=np.object_)
    return tfds.features.FeaturesDict(
        {
            "id": text("In AQA5M, the path of the clip."),
            "dataset": text("Source dataset."),
            "messages": text("JSON: the chat, with each clip's path and transcript."),
            "response": text("What the model should answer."),
            "seed_description": text("The clip in words, as the response's author read it."),
            "prompt": text("The instruction drawn from the pool."),
            "num_samples": tfds.features.Sequence(np.int64, doc="Length of each clip at 16 kHz."),
            "audio": tfds.features.Sequence(flac, doc="Each clip as a FLAC file, 16 kHz, mono, 16 bits."),
        }
    )


def render(name: str, split: str, counts: Sequence[int], size: int) -> Mapping[str, bytes]:
    """The content of FILES.

    Args:
        counts: records in each shard.
        size: bytes of the records together.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import dataset_info, file_adapters, naming

    with tempfile.TemporaryDirectory() as directory:
        template = naming.ShardedFileTemplate(
            data_dir=directory, dataset_name=name, split=split, filetype_suffix="tfrecord"
        )
        identity = dataset_info.DatasetIdentity(
            name=name, version=tfds.core.Version(VERSION), data_dir=directory, module_name=""
        )
        info = tfds.core.DatasetInfo(
            builder=identity, features=features(), description=DESCRIPTION, disable_shuffling=True
        )
        info.set_file_format(file_adapters.FileFormat.TFRECORD)
        info.set_splits(
            tfds.core.splits.SplitDict(
                [
                    tfds.core.SplitInfo(
                        name=split, shard_lengths=list(counts), num_bytes=size, filename_template=template
                    )
                ]
            )
        )
        info.write_to_directory(directory)
        contents = {}
        for file in FILES:
            with open(os.path.join(directory, file), "rb") as opened:
                contents[file] = opened.read()
    return contents
