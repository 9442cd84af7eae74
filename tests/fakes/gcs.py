"""A Google Cloud Storage server on loopback: the JSON API as the real client uses it, exact, with planned faults.

    with FakeGcs("bucket") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        gcs.fail(Fault("status", status=503, when="after"))

Source: https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import hashlib
import json
import random
import re
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c

MAX_RESULTS = 1000
DENIALS = {
    "GET": "storage.objects.get",
    "POST": "storage.objects.create",
    "DELETE": "storage.objects.delete",
    "LIST": "storage.objects.list",
}


@dataclass(kw_only=True)
class StoredObject:
    """One live object.

    Attributes:
        data: Content.
        generation: Changes with every write.
        properties: `contentType`, `metadata`, `cacheControl` as uploaded.
        updated: Server's time, RFC 3339.
    """

    data: bytes
    generation: int
    properties: dict[str, Any]
    updated: str


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: `status` (an error answer), `drop` (connection closed without an answer), `truncate` (half of the body),
            `corrupt` (one byte of the body flipped, checksum header right) or `stall` (an answer after `seconds`).
        status: HTTP status of `status`.
        when: `before` the request takes effect, or `after`.
        method: Only requests with this method; `LIST` is a GET of a listing, `GET` one of an object; empty for all.
        contains: Only requests whose path or object name contains this.
        times: How often; -1 for ever.
        skip: Matching requests that pass before the first fault.
        seconds: Of `stall`.
    """

    kind: str
    status: int = 503
    when: str = "before"
    method: str = ""
    contains: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0.0


@dataclass
class _Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class FakeGcs:
    """The server, a context manager. All state is in memory and guarded by one lock, so each request is atomic.

    Args:
        buckets: Buckets that exist.
        ignore_preconditions: Behave like emulators that overwrite whatever `ifGenerationMatch` says.
        page_size: Most entries of one listing answer.
        delay_seconds: Added to each answer.

    Attributes:
        url: For `STORAGE_EMULATOR_HOST`.
        objects: Live objects by (bucket, name).
        requests: (method, path with query) of every request, in order; a listing's method is `LIST`.
        denied: IAM permissions that are missing, for example `storage.objects.delete`.
    """

    def __init__(
        self,
        *buckets: str,
        ignore_preconditions: bool = False,
        page_size: int = MAX_RESULTS,
        delay_seconds: float = 0.0,
    ) -> None:
        self.buckets = set(buckets or ("bucket",))
        self.ignore_preconditions = ignore_preconditions
        self.page_size = page_size
        self.delay_seconds = delay_seconds
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str]] = []
        self.denied: set[str] = set()
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self._generation = 1_700_000_000_000_000
        self._random: tuple[random.Random, float, tuple[Fault, ...]] | None = None

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.fake = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.close_connections()
        self._server.server_close()
        self._thread.join(5)

    def fail(self, *faults: Fault) -> None:
        """Add faults to the plan; the first that matches a request is used."""
        with self.lock:
            self.faults.extend(faults)

    def fail_randomly(self, rate: float, seed: int, faults: Iterable[Fault]) -> None:
        """Let one of the faults hit each request with this probability."""
        self._random = (random.Random(seed), rate, tuple(faults))

    def heal(self) -> None:
        """Drop every planned and random fault and every denial."""
        with self.lock:
            self.faults.clear()
            self._random = None
            self.denied.clear()

    def put(self, bucket: str, name: str, data: bytes, **properties: Any) -> StoredObject:
        """Store an object as if it had been uploaded."""
        with self.lock:
            self._generation += 1
            stored = StoredObject(
                data=data,
                generation=self._generation,
                properties={"contentType": "application/octet-stream", **properties},
                updated=datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            )
            self.objects[bucket, name] = stored
            return stored

    def names(self, bucket: str = "bucket", prefix: str = "") -> list[str]:
        """Return the names of the live objects, sorted."""
        with self.lock:
            return sorted(name for b, name in self.objects if b == bucket and name.startswith(prefix))

    def take_fault(self, method: str, path: str) -> Fault | None:
        """Return the fault that hits this request, counting it; None for none."""
        with self.lock:
            for fault in self.faults:
                if fault.times == 0 or fault.method not in ("", method) or fault.contains not in unquote(path):
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
            if self._random:
                generator, rate, faults = self._random
                if generator.random() < rate:
                    return generator.choice(faults)
            return None

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> _Answer:
        """Return the answer to a request after it took effect."""
        parts = urlsplit(path)
        query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        with self.lock:
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)", parts.path):
                return self._bucket(match[1])
            if match := re.fullmatch(r"/storage/v1/b/([^/]+)/iam/testPermissions", parts.path):
                asked = parse_qs(parts.query).get("permissions", [])
                return _json(200, {"permissions": [p for p in asked if p not in self.denied]})
            if match := re.fullmatch(r"/(?:(?:download|upload)/)?storage/v1/b/([^/]+)/o(?:/(.+))?", parts.path):
                bucket, name = unquote(match[1]), unquote(match[2] or "")
                if bucket not in self.buckets:
                    return _error(404, "The specified bucket does not exist.")
                permission = DENIALS.get(method, "storage.objects.create")
                if permission in self.denied:
                    return _denied(permission)
                if method == "LIST":
                    return self._list(bucket, query)
                if method == "GET":
                    return self._get(bucket, name, query, headers)
                if method == "DELETE":
                    return self._delete(bucket, name, query)
                if method in ("POST", "PUT") and parts.path.startswith("/upload/"):
                    return self._upload(bucket, query, headers, body)
        return _error(404, f"Not Found: {method} {parts.path}")

    def _bucket(self, name: str) -> _Answer:
        if name not in self.buckets:
            return _error(404, "The specified bucket does not exist.")
        if "storage.buckets.get" in self.denied:
            return _denied("storage.buckets.get")
        return _json(200, {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "projectNumber": "1"})

    def _list(self, bucket: str, query: dict[str, str]) -> _Answer:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("maxResults", MAX_RESULTS)), self.page_size)
        after = base64.urlsafe_b64decode(query["pageToken"]).decode() if query.get("pageToken") else ""
        entries: dict[str, str | None] = {}
        for name in self.names(bucket, prefix):
            head, found, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            entries.setdefault(prefix + head + delimiter if found else name, None if found else name)
        chosen = [entry for entry in sorted(entries) if entry > after]
        page = chosen[:limit]
        result: dict[str, Any] = {"kind": "storage#objects"}
        result["items"] = [self._metadata(bucket, entry) for entry in page if entries[entry] is not None]
        if common := [entry for entry in page if entries[entry] is None]:
            result["prefixes"] = common
        if len(chosen) > limit:
            result["nextPageToken"] = base64.urlsafe_b64encode(page[-1].encode()).decode()
        return _json(200, result)

    def _precondition_failed(self, stored: StoredObject | None, query: dict[str, str]) -> bool:
        if self.ignore_preconditions:
            return False
        generation = stored.generation if stored else 0
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            return True
        return "ifGenerationNotMatch" in query and int(query["ifGenerationNotMatch"]) == generation

    def _get(self, bucket: str, name: str, query: dict[str, str], headers: dict[str, str]) -> _Answer:
        stored = self.objects.get((bucket, name))
        if stored is None or int(query.get("generation", stored.generation)) != stored.generation:
            return _error(404, f"No such object: {bucket}/{name}")
        if self._precondition_failed(stored, query):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if query.get("alt") != "media":
            return _json(200, self._metadata(bucket, name))
        crc32c, md5 = _digests(stored.data)
        answer = _Answer(200, stored.data, {"Content-Type": stored.properties["contentType"]})
        answer.headers["X-Goog-Hash"] = f"crc32c={crc32c},md5={md5}"
        answer.headers["X-Goog-Generation"] = str(stored.generation)
        answer.headers["X-Goog-Stored-Content-Length"] = str(len(stored.data))
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            first, last = int(match[1]), int(match[2] or len(stored.data) - 1)
            last = min(last, len(stored.data) - 1)
            if first > last:
                return _error(416, "Requested range not satisfiable")
            answer.status, answer.body = 206, stored.data[first : last + 1]
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{len(stored.data)}"
        return answer

    def _delete(self, bucket: str, name: str, query: dict[str, str]) -> _Answer:
        stored = self.objects.get((bucket, name))
        if stored is None:
            return _error(404, f"No such object: {bucket}/{name}")
        if self._precondition_failed(stored, query):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        del self.objects[bucket, name]
        return _Answer(204)

    def _upload(self, bucket: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> _Answer:
        if "upload_id" in query:
            return self._resume(query["upload_id"], headers, body)
        kind = query.get("uploadType")
        if kind == "resumable":
            session = f"session-{len(self.sessions) + 1}"
            properties = json.loads(body or b"{}")
            name = properties.pop("name", query.get("name", ""))
            if self._precondition_failed(self.objects.get((bucket, name)), query):
                return _error(412, "At least one of the pre-conditions you specified did not hold.")
            self.sessions[session] = {
                "bucket": bucket,
                "name": name,
                "properties": properties,
                "query": query,
                "data": b"",
            }
            location = f"{self.url}/upload/storage/v1/b/{quote(bucket)}/o?uploadType=resumable&upload_id={session}"
            return _Answer(200, b"", {"Location": location, "X-GUploader-UploadID": session})
        if kind == "multipart":
            properties, data = _split_related(headers["content-type"], body)
        else:
            properties, data = {"contentType": headers.get("content-type", "application/octet-stream")}, body
        return self._insert(bucket, properties.pop("name", query.get("name", "")), properties, query, data)

    def _resume(self, session_id: str, headers: dict[str, str], body: bytes) -> _Answer:
        session = self.sessions.get(session_id)
        if session is None:
            return _error(404, "No such upload")
        match = re.fullmatch(
            r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", headers.get("content-range", f"bytes 0-{len(body) - 1}/{len(body)}")
        )
        if match is None:
            return _error(400, "Failed to parse Content-Range header.")
        if match[1] is not None:
            session["data"] = session["data"][: int(match[1])] + body
        if match[3] == "*" or len(session["data"]) < int(match[3]):
            held = {"Range": f"bytes=0-{len(session['data']) - 1}"} if session["data"] else {}
            return _Answer(308, b"", held)
        if "answer" not in session:  # asked again after a lost answer, a finished session answers as before
            session["answer"] = self._insert(
                session["bucket"], session["name"], session["properties"], session["query"], session["data"]
            )
        return session["answer"]

    def _insert(
        self, bucket: str, name: str, properties: dict[str, Any], query: dict[str, str], data: bytes
    ) -> _Answer:
        stored = self.objects.get((bucket, name))
        if self._precondition_failed(stored, query):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if stored is not None and "storage.objects.delete" in self.denied:
            return _denied("storage.objects.delete")
        crc32c, md5 = _digests(data)
        if properties.get("crc32c", crc32c) != crc32c or properties.get("md5Hash", md5) != md5:
            return _error(400, "Provided checksum doesn't match calculated checksum.")
        kept = {key: properties[key] for key in ("contentType", "metadata", "cacheControl") if properties.get(key)}
        self.put(bucket, name, data, **kept)
        return _json(200, self._metadata(bucket, name))

    def _metadata(self, bucket: str, name: str) -> dict[str, Any]:
        stored = self.objects[bucket, name]
        crc32c, md5 = _digests(stored.data)
        path = f"{self.url}/download/storage/v1/b/{quote(bucket)}/o/{quote(name, safe='')}"
        return {
            "kind": "storage#object",
            "id": f"{bucket}/{name}/{stored.generation}",
            "name": name,
            "bucket": bucket,
            "generation": str(stored.generation),
            "metageneration": "1",
            "size": str(len(stored.data)),
            "crc32c": crc32c,
            "md5Hash": md5,
            "etag": f"etag-{stored.generation}",
            "timeCreated": stored.updated,
            "updated": stored.updated,
            "storageClass": "STANDARD",
            "mediaLink": f"{path}?generation={stored.generation}&alt=media",
            **stored.properties,
        }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    fake: FakeGcs

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._open.discard(request)
        super().close_request(request)

    def close_connections(self) -> None:
        """End what clients keep alive, so that no thread outlives the server."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                self._open.discard(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Stay silent: killed and impatient clients are what this server is for."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Stay silent."""

    def _handle(self) -> None:
        fake = self.server.fake
        headers = {key.lower(): value for key, value in self.headers.items()}
        body = self._body(headers)
        method = self.command
        if method == "GET" and re.fullmatch(r"/storage/v1/b/[^/]+/o", urlsplit(self.path).path):
            method = "LIST"
        with fake.lock:
            fake.requests.append((method, self.path))
        fault = fake.take_fault(
            method, self.path + (body[:2000].decode("latin-1") if method in ("POST", "PUT") else "")
        )
        if fake.delay_seconds:
            time.sleep(fake.delay_seconds)
        if fault and fault.kind == "stall":
            time.sleep(fault.seconds)
        elif fault and fault.kind == "drop" and fault.when == "before":
            return self._hang_up()
        elif fault and fault.kind == "status" and fault.when == "before":
            return self._send(_error(fault.status, "planned fault"))
        answer = fake.answer(method, self.path, headers, body)
        if fault and fault.kind == "drop" and fault.when == "after":
            return self._hang_up()
        if fault and fault.kind == "status" and fault.when == "after":
            answer = _error(fault.status, "planned fault")
        if fault and fault.kind == "corrupt" and answer.status in (200, 206) and answer.body:
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 0xFF])
        return self._send(answer, truncate=bool(fault and fault.kind == "truncate"))

    do_GET = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815 (names that http.server looks up)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() != "chunked":
            return self.rfile.read(int(headers.get("content-length") or 0))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _send(self, answer: _Answer, *, truncate: bool = False) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if truncate else answer.body)
        self.wfile.flush()
        if truncate:
            self._hang_up()


def _json(status: int, value: dict[str, Any]) -> _Answer:
    return _Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8"})


def _error(status: int, message: str) -> _Answer:
    return _json(status, {"error": {"code": status, "message": message, "errors": [{"message": message}]}})


def _denied(permission: str) -> _Answer:
    return _error(
        403,
        f"worker@project.iam.gserviceaccount.com does not have {permission} access to the Google Cloud Storage object.",
    )


def _digests(data: bytes) -> tuple[str, str]:
    """Return CRC32C and MD5 in the API's base64."""
    crc32c = google_crc32c.value(data).to_bytes(4, "big")
    md5 = hashlib.md5(data, usedforsecurity=False).digest()
    return base64.b64encode(crc32c).decode(), base64.b64encode(md5).decode()


def _split_related(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the JSON part and the content of a multipart/related body."""
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)[1].encode()
    _, metadata, content, _ = body.split(b"--" + boundary, 3)
    head, _, data = content.partition(b"\r\n\r\n")
    properties = json.loads(metadata.partition(b"\r\n\r\n")[2])
    kind = re.search(rb"content-type: *([^\r\n]+)", head, re.IGNORECASE)
    properties.setdefault("contentType", kind[1].decode() if kind else "application/octet-stream")
    return properties, data.removesuffix(b"\r\n")
