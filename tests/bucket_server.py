"""A stand-in for Google Cloud Storage: the part of its JSON API that gcsfs, TensorStore and Orbax speak."""

from __future__ import annotations

import contextlib
import email
import http.server
import itertools
import json
import pathlib
import re
import threading
import urllib.parse

BUCKET = "/storage/v1/b/(?P<bucket>[^/]+)"
OBJECT = BUCKET + "/o/(?P<name>[^/]+)"


class Objects(dict):
    """Contents by (bucket, name), each with the generation that its last writing gave it; no two are the same."""

    def __init__(self):
        super().__init__()
        self._generations = itertools.count(1_000_000)
        self.lock = threading.Lock()

    def put(self, bucket: str, name: str, content: bytes) -> dict:
        self[bucket, name] = (content, next(self._generations))
        return self.about(bucket, name)

    def upload(self, folder: pathlib.Path, bucket: str, prefix: str) -> None:
        """All files of a local folder."""
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(bucket, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def about(self, bucket: str, name: str) -> dict:
        content, generation = self[bucket, name]
        return {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "timeCreated": "2026-01-01T00:00:00.000Z",
            "updated": "2026-01-01T00:00:00.000Z",
            "contentType": "application/octet-stream",
        }


class Handler(http.server.BaseHTTPRequestHandler):
    """One request; `self.server` holds the objects."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.objects.lock:
            answer = self.answer(self.command, self.path, self.headers, body)
        with contextlib.suppress(BrokenPipeError):  # who asked was killed
            self.reply(*answer)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def answer(self, method, path, headers, body):
        parts = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(parts.query, keep_blank_values=True))
        for verb, pattern, work in ROUTES:
            found = re.fullmatch(pattern, parts.path)
            if found and re.fullmatch(verb, method):
                given = {key: urllib.parse.unquote(value) for key, value in found.groupdict().items()}
                return work(self, query, headers, body, **given)
        self.server.unknown.append(f"{method} {path}")
        return 501, {"error": f"{method} {path}"}

    def reply(self, status, content, headers=()):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def bucket(self, query, headers, body, bucket):
        return 200, {"kind": "storage#bucket", "id": bucket, "name": bucket, "location": "US-EAST5"}

    def layout(self, query, headers, body, bucket):
        return 200, {"kind": "storage#storageLayout", "bucket": bucket, "hierarchicalNamespace": {"enabled": False}}

    def listing(self, query, headers, body, bucket):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter")
        first, last = query.get("startOffset", ""), query.get("endOffset")
        items, prefixes = [], set()
        for place, name in sorted(self.server.objects):
            if place != bucket or not name.startswith(prefix) or name < first or (last and name >= last):
                continue
            if delimiter and delimiter in name[len(prefix) :]:
                prefixes.add(prefix + name[len(prefix) :].split(delimiter)[0] + delimiter)
                if not (query.get("includeTrailingDelimiter") == "true" and name in prefixes):
                    continue
            items.append(self.server.objects.about(bucket, name))
        return 200, {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}

    def read(self, query, headers, body, bucket, name):
        if (bucket, name) not in self.server.objects:
            return 404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}}
        content, generation = self.server.objects[bucket, name]
        if query.get("ifGenerationNotMatch") == str(generation):
            return 304, b""
        if query.get("alt") != "media":
            return 200, self.server.objects.about(bucket, name)
        generations = {"x-goog-generation": str(generation), "x-goog-stored-content-encoding": "identity"}
        asked = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
        if not asked:
            return 200, content, generations
        size = len(content)
        start = int(asked[1]) if asked[1] else max(0, size - int(asked[2]))
        stop = min(size, int(asked[2]) + 1) if asked[1] and asked[2] else size
        if start >= size:
            return 416, b"", {"Content-Range": f"bytes */{size}"}
        return 206, content[start:stop], {**generations, "Content-Range": f"bytes {start}-{stop - 1}/{size}"}

    def upload(self, query, headers, body, bucket):
        kind, name = query["uploadType"], query.get("name")
        if kind == "resumable":
            name = name or json.loads(body)["name"]
            session = f"{len(self.server.sessions)}"
            self.server.sessions[session] = (bucket, name, bytearray())
            return 200, b"", {"Location": f"http://{headers['Host']}/upload/session/{session}"}
        if kind == "multipart":
            message = b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body
            about, content = email.message_from_bytes(message).get_payload()
            name = name or json.loads(about.get_payload(decode=True))["name"]
            body = content.get_payload(decode=True)
        return self.put(query, bucket, name, body)

    def put(self, query, bucket, name, content):
        _, generation = self.server.objects.get((bucket, name), (b"", 0))
        if query.get("ifGenerationMatch") not in (None, str(generation)):
            return 412, {"error": {"code": 412, "message": "conditionNotMet"}}
        return 200, self.server.objects.put(bucket, name, content)

    def go_on(self, query, headers, body, session):
        bucket, name, content = self.server.sessions[session]
        content += body
        if headers.get("Content-Range", "").endswith("/*"):
            return 308, b"", {"Range": f"bytes=0-{len(content) - 1}"}
        return self.put({}, bucket, name, bytes(content))

    def delete(self, query, headers, body, bucket, name):
        if self.server.objects.pop((bucket, name), None) is None:
            return 404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}}
        return 204, b""

    def copy(self, query, headers, body, bucket, name, to_bucket, to):
        if (bucket, name) not in self.server.objects:
            return 404, {"error": {"code": 404, "message": f"No such object: {bucket}/{name}"}}
        about = self.server.objects.put(to_bucket, to, self.server.objects[bucket, name][0])
        return 200, {"kind": "storage#rewriteResponse", "done": True, "resource": about}

    def batch(self, query, headers, body):
        message = email.message_from_bytes(b"Content-Type: " + headers["Content-Type"].encode() + b"\r\n\r\n" + body)
        boundary, replies = "batch_answer", []
        for part in message.get_payload():
            method, path, _ = part.get_payload(decode=True).decode().split(None, 2)
            status, content, *_ = self.answer(method, urllib.parse.urlsplit(path).path, {}, b"")
            text = content.decode() if isinstance(content, bytes) else json.dumps(content)
            replies.append(
                f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: response-{part['Content-ID']}\r\n\r\n"
                f"HTTP/1.1 {status} x\r\nContent-Type: application/json\r\n\r\n{text}\r\n"
            )
        data = ("".join(replies) + f"--{boundary}--\r\n").encode()
        return 200, data, {"Content-Type": f"multipart/mixed; boundary={boundary}"}


ROUTES = (
    ("GET", BUCKET, Handler.bucket),
    ("GET", BUCKET + "/storageLayout", Handler.layout),
    ("GET", BUCKET + "/o/?", Handler.listing),
    ("GET", "(/download)?" + OBJECT, Handler.read),
    ("POST", "/upload" + BUCKET + "/o", Handler.upload),
    ("(PUT|POST)", "/upload/session/(?P<session>.+)", Handler.go_on),
    ("POST", OBJECT + "/rewriteTo/b/(?P<to_bucket>[^/]+)/o/(?P<to>[^/]+)", Handler.copy),
    ("DELETE", OBJECT, Handler.delete),
    ("POST", "/batch/storage/v1", Handler.batch),
)


class BucketServer(http.server.ThreadingHTTPServer):
    """Serves on a free local port until it is closed."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("localhost", 0), Handler)
        self.objects = Objects()
        self.sessions: dict[str, tuple[str, str, bytearray]] = {}
        self.unknown: list[str] = []
        """Requests that it has no answer to."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_address[1]}"
