"""A run that looks at held-out samples and at a benchmark while it goes on."""

import dataclasses
import json

import pytest

from desta_jax import generation
from desta_jax.config import make_config, to_json
from desta_jax.evaluation import in_training, run
from desta_jax.evaluation.in_training import Examiner, held_out
from desta_jax.records.write import write_records
from desta_jax.training.checkpoint import Checkpoints
from desta_jax.training.run import assemble, first_adapter, load_frozen
from desta_jax.training.step import init_state


@pytest.fixture(scope="module")
def records(tmp_path_factory, write_wav):
    """Eight rows of tones."""
    folder, rows = tmp_path_factory.mktemp("tones"), []
    for number in range(8):
        write_wav(folder / f"{number}.wav", hz=100 * (1 + number))
        user = {"role": "user", "content": "<start_audio><|AUDIO|><end_audio> Which?"}
        user["audios"] = [{"audio": f"{number}.wav", "text": "la"}]
        rows.append({"id": f"{number}", "dataset": "tones", "messages": [user], "response": f"Tone {number}."})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_records([str(folder / "rows.jsonl")], str(folder), str(folder / "records"), shards=1, workers=1, report=str)
    return folder / "records"


@pytest.fixture
def config_of(micro_model, records):
    def make(**changes):
        return make_config(
            {
                "compute_dtype": "float32",
                "model.checkpoint": str(micro_model),
                "adapter.num_layers": 1,
                "adapter.prompt_size": 4,
                "adapter.tap_layers": (0, 1),
                "adapter.placeholder_token": "<|placeholder|>",
                "adapter.lora_rank": 2,
                "data.train": (str(records),),
                "data.validation": (str(records),),
                "data.max_length": 64,
                "data.validation_max_length": 64,
                "data.audio_seconds": 1,
                "data.threads": 1,
                "train.batch_size": 8,
                "train.steps": 2,
                "optimizer.warmup_steps": 1,
                "log.tensorboard": False,
                "remat": "none",
                **changes,
            }
        )

    return make


@pytest.fixture
def begun(config_of, tmp_path, mmau, monkeypatch):
    """A run at its start, saved as its first checkpoint; answers are short, to be quick."""
    monkeypatch.setitem(run.BENCHMARKS, "mmau", dataclasses.replace(run.BENCHMARKS["mmau"], max_new_tokens=4))
    monkeypatch.setattr(in_training, "SHOWN_TOKENS", 6)
    config = config_of(**{
        "evaluate.benchmarks": f"mmau={mmau}", "evaluate.benchmark_questions": 2, "evaluate.samples": 3
    })  # fmt: skip
    made = assemble(config, str(tmp_path))
    adapter = first_adapter(made)
    adapter["lora"]["q"]["b"] = adapter["lora"]["q"]["b"] + 0.3  # a fresh LoRA says nothing
    checkpoints = Checkpoints(str(tmp_path), keep=1)
    checkpoints.save(1, init_state(adapter, made.optimizer))
    checkpoints.close()
    (tmp_path / "config.json").write_text(to_json(config))
    return made, load_frozen(made), adapter, Examiner(config, str(tmp_path))


def test_a_run_answers_as_the_model_loaded_from_its_checkpoint_does(begun, tmp_path):
    made, frozen, adapter, examiner = begun
    shown = examiner.answers(made, frozen, adapter)
    assert [row["expected"] for row in shown] == ["Tone 0.", "Tone 2.", "Tone 5."]
    samples = held_out(tuple(made.config.data.validation), 3)
    clips = [[{"audio": sample.audio[0], "text": "la"}] for sample in samples]
    asked = [[sample.messages[0] | {"audios": clip}] for sample, clip in zip(samples, clips)]
    model = generation.load(str(tmp_path), dtype="float32", mesh=made.mesh, cache_programs=False)
    answers = model.generate(asked, max_new_tokens=6, temperature=0, transcripts="given")
    assert [answer.text for answer in answers] == [row["answer"] for row in shown]
    assert examiner.answers(made, frozen, adapter) == shown  # the run's own weights are still whole


def test_a_held_out_sample_that_cannot_be_read_is_not_shown(records, monkeypatch):
    read = in_training.RecordSource.__getitem__

    def damaged(source, place):
        if place == 2:
            raise OSError("a record is damaged")
        return read(source, place)

    held_out.cache_clear()
    monkeypatch.setattr(in_training.RecordSource, "__getitem__", damaged)
    assert [sample.id for sample in held_out((str(records),), 4)] == ["0", "4", "6"]
    held_out.cache_clear()


def test_a_run_takes_benchmarks(begun, tmp_path):
    made, frozen, adapter, examiner = begun
    figures = examiner.scores(made, frozen, adapter, 2)
    assert set(figures) == {"mmau/sound", "mmau/music", "mmau/average"}  # of three questions, the first two
    report = json.loads((tmp_path / "benchmarks/step-2/mmau/scores.json").read_text())
    assert report["model"] == "step 2" and report["answered"] == 2 and not report["complete"]


@pytest.mark.parametrize(
    "entry, message",
    [("mmlu={}", "no benchmark 'mmlu'; there are .*mmau"), ("mmau={}/lost", "there is no .*lost")],
)
def test_benchmarks_that_are_not_there_are_named_before_the_run(config_of, tmp_path, entry, message):
    config = config_of(**{"evaluate.benchmarks": (entry.format(tmp_path),)})
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        Examiner(config, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="local disk"):
        Examiner(config, "gs://bucket/run")


def test_what_a_benchmark_needs_is_missed_before_the_run(config_of, tmp_path, without):
    without("nltk")
    config = config_of(**{"evaluate.benchmarks": (f"voicebench={tmp_path}",)})
    with pytest.raises(ValueError, match=r'VoiceBench needs nltk: pip install -e "\.\[evaluate\]"'):
        Examiner(config, str(tmp_path / "run"))


def test_a_benchmark_without_its_folder_is_a_wrong_config():
    with pytest.raises(ValueError, match="evaluate.benchmarks: 'mmau' is not NAME=FOLDER"):
        make_config({"evaluate.benchmarks": "mmau"})
