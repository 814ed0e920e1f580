"""A record is a tf.train.Example; TensorFlow Datasets' own protocol buffer classes are the oracle."""

import dataclasses

import pytest
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from desta_jax.records import schema, tfrecord

SAMPLE = schema.Sample(
    id="speech/ä.wav",
    dataset="LibriTTS_R",
    messages=[{"role": "user", "content": "听 <|AUDIO|> <|AUDIO|>", "audios": [{"audio": "a", "text": " "}] * 2}],
    response="Une réponse.\n" * 20,
    num_samples=[1, 2**40],
    audio=[b"fLaC" + bytes(300), b""],
    seed_description="[00:00-00:01] words",
)


def test_protocol_buffers_read_what_we_write():
    record, _ = schema.encode(SAMPLE)
    features = Example.FromString(record).features.feature
    assert set(features) == set(schema.FEATURES)
    assert features["id"].bytes_list.value == [SAMPLE.id.encode()]
    assert features["num_samples"].int64_list.value == SAMPLE.num_samples
    assert features["audio"].bytes_list.value == SAMPLE.audio
    assert features["prompt"].bytes_list.value == [b""]


def test_we_read_what_protocol_buffers_write_in_any_order():
    example = Example()
    for name in reversed(schema.FEATURES):
        if name == "num_samples":
            example.features.feature[name].int64_list.value.extend(SAMPLE.num_samples)
        elif name == "audio":
            example.features.feature[name].bytes_list.value.extend(SAMPLE.audio)
        else:
            text = schema.dump_messages(SAMPLE.messages) if name == "messages" else getattr(SAMPLE, name)
            example.features.feature[name].bytes_list.value.append(text.encode())
    record = example.SerializeToString()
    assert schema.decode(record) == SAMPLE
    assert schema.decode_text(record[: schema.text_length(record)]).response == SAMPLE.response


def test_the_text_is_read_without_the_audio():
    record, text_length = schema.encode(SAMPLE)
    assert schema.text_length(record) == text_length < len(record) - 300
    assert schema.decode_text(record[:text_length]) == dataclasses.replace(SAMPLE, audio=[])


def test_a_row_without_clips_is_a_record_too():
    sample = dataclasses.replace(SAMPLE, messages=[{"role": "user", "content": "hi"}], num_samples=[], audio=[])
    assert schema.decode(schema.encode(sample)[0]) == sample


def test_transcripts_come_in_reading_order():
    assert SAMPLE.transcripts == [" ", " "]


@pytest.mark.parametrize("damage", ["empty", "zeros", "cut", "another schema"])
def test_other_bytes_are_a_value_error(damage):
    other = Example()
    other.features.feature["image"].bytes_list.value.append(b"...")
    record, _ = schema.encode(SAMPLE)
    data = {"empty": b"", "zeros": bytes(50), "cut": record[:-20], "another schema": other.SerializeToString()}[damage]
    with pytest.raises(ValueError, match=r"tf\.train\.Example|not a record of this schema"):
        schema.decode(data)


def test_the_frame_is_tensorflows():
    written_by_tensorflow = "0500000000000000eab2043e68656c6c6fbb1f1c19000000000000000029039807d8ea82a2"  # "hello", ""
    frames = b""
    for record in (b"hello", b""):
        header, footer = tfrecord.frame(record)
        frames += header + record + footer
        assert tfrecord.header_length(header) == len(record)
        tfrecord.check_record(record, footer)
    assert frames.hex() == written_by_tensorflow


def test_a_flipped_bit_is_seen():
    header, footer = tfrecord.frame(b"hello")
    with pytest.raises(ValueError, match="checksum"):
        tfrecord.check_record(b"hellp", footer)
    with pytest.raises(ValueError, match="checksum"):
        tfrecord.header_length(b"\x04" + header[1:])
