"""Every test runs on the CPU, seen by JAX as eight devices; tests marked real or slow run when asked for."""

import atexit
import os
import pathlib
import shutil
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (  # eight devices; and compiling, most of the tests' work, takes less than half as long
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8 --xla_backend_optimization_level=0"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:  # the processes of one session share what they compile
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="desta_jax-tests-")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.3"
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is a mistake
os.environ.setdefault("OMP_NUM_THREADS", "1")  # PyTorch, the oracle: a process a core is enough

import threading

import pytest

OPTIONAL = {"real": "the real small models", "slow": "tests that take minutes"}


def pytest_addoption(parser):
    for marker, what in OPTIONAL.items():
        parser.addoption(f"--{marker}", action="store_true", help=f"also run {what}")


def pytest_collection_modifyitems(config, items):
    for item in items:
        for marker in OPTIONAL:
            if marker in item.keywords and not config.getoption(f"--{marker}"):
                item.add_marker(pytest.mark.skip(reason=f"run with --{marker}"))


@pytest.fixture
def serve():
    """A chat endpoint: serve(answer) starts one that answers by `answer`; it stops with the test."""
    from chat_server import Answering

    servers = []

    def start(answer):
        servers.append(Answering(answer))
        threading.Thread(target=servers[-1].serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def reply_with():
    """What such an endpoint answers to hold these texts, one a choice."""
    from chat_server import reply

    return reply


@pytest.fixture(scope="session")
def micro_models_folder(tmp_path_factory):
    """A folder with micro models: llama/ and whisper/ as Hugging Face has them, and converted/ without an adapter."""
    import micro_models
    from desta_jax.weights.convert import convert

    folder = tmp_path_factory.mktemp("micro_models")
    for name, weights, special, settings in (
        ("llama", micro_models.llama_weights(), micro_models.CHAT, micro_models.llama_settings),
        ("whisper", micro_models.whisper_weights(), micro_models.TRANSCRIPTION, micro_models.whisper_settings),
    ):
        micro_models.make(folder / name, weights, special, settings)
    convert(folder / "llama", folder / "whisper", folder / "converted")
    return folder


@pytest.fixture(scope="session")
def real_folders():
    """Hugging Face folders of the real small pair, SmolLM2-135M-Instruct and Whisper base; tests/run.sh says where."""
    models = pathlib.Path(os.environ.get("REAL_MODELS", pathlib.Path(__file__).parents[1] / "quickstart" / "models"))
    found = models / "smollm2-135m-instruct", models / "whisper-base"
    if not all(folder.is_dir() for folder in found):
        pytest.fail(f"no models in {models}: python launch/real_models.py {models} makes them")
    return found
