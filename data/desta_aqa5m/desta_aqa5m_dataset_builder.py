"""Builds and reads DeSTA-AQA5M with TensorFlow Datasets; building needs no TensorFlow."""

import pathlib

import tensorflow_datasets as tfds
from tensorflow_datasets.core.dataset_builder import FileReaderBuilder

from desta_jax.records import dataset_info
from desta_jax.records.write import write_records


class Builder(FileReaderBuilder):
    """The rows and the audio under `manual_dir`, written by desta_jax's own parallel writer.

    `desta-jax records --out DATA_DIR/desta_aqa5m/1.0.0` writes the same, and can be stopped and continued, which is
    the way for the whole of it; `tfds.load` finds either.
    """

    VERSION = tfds.core.Version(dataset_info.VERSION)
    RELEASE_NOTES = {dataset_info.VERSION: "The rows made with Llama-3.1-8B-Instruct."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = """
    Put the rows (*.jsonl, from DeSTA-ntu/DeSTA-AQA5M-FROM-Llama3.1-8B-Instruct on the Hugging Face hub) in manual_dir,
    and the source datasets' audio in manual_dir/audio, at the paths that the rows name.
    """

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=dataset_info.features(),
            homepage="https://huggingface.co/datasets/DeSTA-ntu/DeSTA-AQA5M-FROM-Llama3.1-8B-Instruct",
            disable_shuffling=True,
        )

    def _download_and_prepare(self, dl_manager, download_config) -> None:
        manual = pathlib.Path(dl_manager.manual_dir)
        manifests = sorted(map(str, manual.glob("*.jsonl")))
        if not manifests:
            raise FileNotFoundError(f"{manual}: no *.jsonl. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}")
        write_records(manifests, str(manual / "audio"), self.data_dir, name=self.name)
        self.info.read_from_directory(self.data_dir)
