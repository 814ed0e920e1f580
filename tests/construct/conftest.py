"""Clips of tones, their metadata, and an endpoint that answers what it is told to."""

import collections
import http.server
import json
import threading

import numpy as np
import pytest
import soundfile

import micro_models
from desta_jax.construct.clip import Clip, Segment
from desta_jax.construct.source import parse_source
from desta_jax.weights.convert import convert

MOODS = {"happy": 440, "sad": 110, "angry": 330, "calm": 165}


@pytest.fixture
def source_of():
    """A source of speech: source_of(words="text", ...)."""
    return lambda **keys: parse_source({"name": "Test", "kind": "speech", "audio": "audio", **keys})


@pytest.fixture
def clip_of():
    """A clip of one segment: clip_of("a.wav", "Hello.", Emotion="Happy")."""

    def make(audio="a.wav", words="", kind="speech", language="en", caption="", **attributes):
        return Clip(audio, "Test", kind, [Segment(words=words, attributes=attributes)], caption, {}, 2.0, language)

    return make


@pytest.fixture(scope="session")
def spoken(tmp_path_factory):
    """A folder of twelve clips with metadata.csv."""
    folder = tmp_path_factory.mktemp("spoken")
    lines = ["audio,text,emotion"]
    for index, (mood, pitch) in enumerate([*MOODS.items()] * 3):
        time = np.arange(8000 + 800 * index) / 16000
        soundfile.write(folder / f"{index}.wav", 0.2 * np.sin(2 * np.pi * pitch * time), 16000)
        lines.append(f"{index}.wav,This is sentence number {index} of them all.,{mood}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A converted micro model without an adapter, and the Hugging Face folder of its language model."""
    folder = tmp_path_factory.mktemp("model")
    whisper, llama = folder / "whisper", folder / "llama"
    micro_models.make(
        whisper, micro_models.whisper_weights(), micro_models.TRANSCRIPTION, micro_models.whisper_settings
    )
    micro_models.make(llama, micro_models.llama_weights(), micro_models.CHAT, micro_models.llama_settings)
    convert(llama, whisper, folder / "converted")
    return folder / "converted", llama


class Answering(http.server.ThreadingHTTPServer):
    """Answers chat completions by `answer(body, times asked)` -> (status, headers, reply)."""

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer, self.asked, self.lock = answer, collections.Counter(), threading.Lock()
        self.at_once = self.most_at_once = 0
        self.bodies, self.headers = [], []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            key = json.dumps(body["messages"])
            server.asked[key] += 1
            server.bodies.append(body)
            server.headers.append(dict(self.headers))
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        status, headers, reply = server.answer(body, server.asked[key])
        with server.lock:
            server.at_once -= 1
        data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def choice(text, finish="stop"):
    return 200, {}, {"choices": [{"message": {"content": text}, "finish_reason": finish}]}


@pytest.fixture
def serve():
    """serve(answer) starts a server; it stops with the test."""
    servers = []

    def start(answer):
        server = Answering(answer)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def reply_with():
    """The server's reply that holds a text."""
    return choice
