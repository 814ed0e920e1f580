"""A chat endpoint on this machine that answers what it is told to."""

import collections
import http.server
import json
import threading


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


def reply(*texts, finish="stop"):
    """What the server answers with these texts, one a choice."""
    return 200, {}, {"choices": [{"message": {"content": text}, "finish_reason": finish} for text in texts]}
