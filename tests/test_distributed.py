"""Which processes join which: on Cloud TPU without a word, elsewhere by flags or the environment, alone not at all."""

import jax
import pytest

from desta_jax import distributed


@pytest.fixture
def joined(monkeypatch):
    """The arguments with which JAX was asked to join; nothing of this machine's environment is seen."""
    calls = []
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    for name in (*names, "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(distributed.os.path, "exists", lambda path: False)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *arguments: calls.append(arguments))
    return calls


def test_alone_it_joins_nobody(joined):
    distributed.start()
    assert joined == []


@pytest.mark.parametrize(
    ("variable", "value"), [("TPU_WORKER_HOSTNAMES", "t1k-0,t1k-1"), ("MEGASCALE_NUM_SLICES", "2")]
)
def test_a_worker_of_several_hosts_asks_jax(joined, monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    distributed.start()
    assert joined == [()]


def test_a_slice_of_one_host_joins_nobody(joined, monkeypatch):
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    distributed.start()
    assert joined == []


@pytest.mark.parametrize("installed", [True, False])
def test_a_device_that_may_be_a_tpu_is_one_where_libtpu_is(joined, monkeypatch, installed):
    monkeypatch.setattr(distributed.os.path, "exists", lambda path: path == "/dev/vfio/0")
    monkeypatch.setattr(distributed.importlib.util, "find_spec", lambda name: object() if installed else None)
    distributed.start()
    assert joined == ([()] if installed else [])


def test_flags_go_before_the_environment_and_all_are_needed(joined, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "4")
    with pytest.raises(ValueError, match="give all three"):
        distributed.start()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "host:1")
    monkeypatch.setenv("JAX_PROCESS_ID", "3")
    distributed.start()
    distributed.start(index=2)
    assert joined == [("host:1", 4, 3), ("host:1", 4, 2)]
