"""Traces of a run's steps."""

import pytest

from desta_jax.training.loop import COMPLETE, train
from desta_jax.training.profiler import Profiler


def traces(workdir):
    return list((workdir / "profile").rglob("*.xplane.pb"))


def test_the_steps_that_the_config_names_are_traced(config_of, tmp_path, capfd):
    config = config_of(**{"profile.start_step": 2, "profile.steps": 1})
    assert train(config, str(tmp_path)) == COMPLETE
    (trace,) = traces(tmp_path)
    assert b"train_step" in trace.read_bytes()
    assert f"xprof --logdir {tmp_path / 'profile'}" in capfd.readouterr().err


class Listener:
    def __init__(self):
        self.said = []

    def say(self, line):
        self.said.append(line)


def make(tmp_path, config_of, silent=False):
    journal = Listener()
    return Profiler(str(tmp_path), config_of().profile, journal, silent=silent), journal


def test_a_request_is_taken_once(config_of, tmp_path):
    profiler, journal = make(tmp_path, config_of)
    (tmp_path / "profile_request").write_text("3\n")
    profiler.look_for_request()
    assert profiler.requested == 3 and not journal.said and not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "0", "-1", "many"])
def test_a_request_for_no_number_of_steps_is_told(config_of, tmp_path, text):
    profiler, journal = make(tmp_path, config_of)
    (tmp_path / "profile_request").write_text(text)
    profiler.look_for_request()
    assert profiler.requested == 0 and "expected a number of steps" in journal.said[0]


def test_a_request_is_for_the_first_process(config_of, tmp_path):
    profiler, _ = make(tmp_path, config_of, silent=True)
    (tmp_path / "profile_request").write_text("3")
    profiler.look_for_request()
    assert profiler.requested == 0 and (tmp_path / "profile_request").exists()
