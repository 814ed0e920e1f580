"""The shards are a TensorFlow Datasets dataset, made without TensorFlow."""

import importlib
import pathlib
import sys

import pytest
import tensorflow_datasets as tfds

from desta_jax.records import dataset_info, schema
from desta_jax.records.read import RecordSource
from desta_jax.records.verify import verify

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_tfds_knows_a_directory_of_records(records):
    info = tfds.builder_from_directory(str(records)).info
    assert info.full_name == "desta_aqa5m/1.0.0"
    split = info.splits["train"]
    assert split.shard_lengths == [4, 4, 4]
    assert [pathlib.Path(path).name for path in split.filepaths] == RecordSource(records).index.shards
    assert split.num_bytes == sum(pathlib.Path(path).stat().st_size for path in split.filepaths)
    assert set(info.features) == set(schema.FEATURES)


def test_tfds_features_parse_the_records(records):
    features = tfds.builder_from_directory(str(records)).info.features
    record = RecordSource(records)[2]
    example, sample = features.deserialize_example_np(record), schema.decode(record)
    assert list(example["audio"]) == sample.audio
    assert list(example["num_samples"]) == sample.num_samples
    assert example["response"] == sample.response.encode()


@pytest.fixture
def builder_module():
    if importlib.util.find_spec("data.desta_aqa5m") is None:
        pytest.fail("data/desta_aqa5m is not where it should be")
    return importlib.import_module("data.desta_aqa5m.desta_aqa5m_dataset_builder")


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)


def test_the_builder_writes_with_our_writer(corpus, row, tmp_path, builder_module):
    corpus.add(row(0)).add(row(1, clips=2))
    builder = builder_module.Builder(data_dir=tmp_path / "data")
    config = tfds.download.DownloadConfig(manual_dir=corpus.directory)
    builder.download_and_prepare(download_config=config)
    assert builder.info.splits["train"].num_examples == 2
    assert "7,000" in builder.info.description and "2507.02768" in builder.info.citation
    assert verify(str(builder.data_dir), workers=1).problems == []
    assert "tensorflow" not in sys.modules


def test_the_builder_finds_what_the_command_wrote(corpus, row, tmp_path, builder_module):
    corpus.add(row(0)).write(tmp_path / "data" / "desta_aqa5m" / dataset_info.VERSION)
    builder = builder_module.Builder(data_dir=tmp_path / "data")
    assert builder.info.splits["train"].num_examples == 1


def test_the_builder_says_where_the_rows_should_be(tmp_path, builder_module):
    (tmp_path / "manual" / "audio").mkdir(parents=True)
    builder = builder_module.Builder(data_dir=tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="Put the rows"):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=tmp_path / "manual"))
