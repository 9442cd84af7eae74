"""A Google Cloud Storage server on loopback: the JSON API as the real client uses it, exact, with planned faults.

    with FakeGcs("bucket") as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        gcs.fail(Fault("status", status=503, when="after"))

Source: https://cloud.google.com/storage/docs/json_api/v1
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c

from tests.fakes.faults import Answer, Fault, FaultyServer

__all__ = ["FakeGcs", "Fault", "StoredObject"]

MAX_RESULTS = 1000
_EMPTY = "text/html; charset=UTF-8"
"""What the service calls answers without a body."""
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


class FakeGcs(FaultyServer):
    """The server, a context manager. All state is in memory and guarded by one lock, so each request is atomic.

    Args:
        buckets: Buckets that exist.
        ignore_preconditions: Behave like emulators that overwrite whatever `ifGenerationMatch` says.
        page_size: Most entries of one listing answer.
        options: Of `FaultyServer`.

    Attributes:
        url: For `STORAGE_EMULATOR_HOST`.
        objects: Live objects by (bucket, name).
        denied: IAM permissions that are missing, for example `storage.objects.delete`.
        omits_defaults: Leave out a size of 0, like servers made from the API's protocol buffers.
    """

    def __init__(
        self,
        *buckets: str,
        ignore_preconditions: bool = False,
        page_size: int = MAX_RESULTS,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.buckets = set(buckets or ("bucket",))
        self.ignore_preconditions = ignore_preconditions
        self.page_size = page_size
        self.omits_defaults = False
        self.objects: dict[tuple[str, str], StoredObject] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.denied: set[str] = set()
        self._generation = 1_700_000_000_000_000

    def heal(self) -> None:
        """Drop every planned and random fault and every denial."""
        super().heal()
        self.denied.clear()

    def kind(self, method: str, path: str) -> str:
        """Tell listings from reads."""
        return "LIST" if method == "GET" and re.fullmatch(r"/storage/v1/b/[^/]+/o", urlsplit(path).path) else method

    def error(self, status: int) -> Answer:
        """Return a planned error as the service words it."""
        return _error(status, "planned fault")

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

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
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

    def _bucket(self, name: str) -> Answer:
        if name not in self.buckets:
            return _error(404, "The specified bucket does not exist.")
        if "storage.buckets.get" in self.denied:
            return _denied("storage.buckets.get")
        return _json(200, {"kind": "storage#bucket", "id": name, "name": name, "location": "US", "projectNumber": "1"})

    def _list(self, bucket: str, query: dict[str, str]) -> Answer:
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

    def _get(self, bucket: str, name: str, query: dict[str, str], headers: dict[str, str]) -> Answer:
        stored = self.objects.get((bucket, name))
        if stored is None or int(query.get("generation", stored.generation)) != stored.generation:
            return _error(404, f"No such object: {bucket}/{name}")
        if self._precondition_failed(stored, query):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if query.get("alt") != "media":
            return _json(200, self._metadata(bucket, name))
        crc32c, md5 = _digests(stored.data)
        answer = Answer(200, stored.data, {"Content-Type": stored.properties["contentType"]})
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

    def _delete(self, bucket: str, name: str, query: dict[str, str]) -> Answer:
        stored = self.objects.get((bucket, name))
        if stored is None:
            return _error(404, f"No such object: {bucket}/{name}")
        if self._precondition_failed(stored, query):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        del self.objects[bucket, name]
        return Answer(204, b"", {"Content-Type": _EMPTY})

    def _upload(self, bucket: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> Answer:
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
            return Answer(200, b"", {"Location": location, "X-GUploader-UploadID": session, "Content-Type": _EMPTY})
        if kind == "multipart":
            properties, data = _split_related(headers["content-type"], body)
        else:
            properties, data = {"contentType": headers.get("content-type", "application/octet-stream")}, body
        return self._insert(bucket, properties.pop("name", query.get("name", "")), properties, query, data)

    def _resume(self, session_id: str, headers: dict[str, str], body: bytes) -> Answer:
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
            return Answer(308, b"", held)
        if match := re.search(r"crc32c=([^,]+)", headers.get("x-goog-hash", "")):
            session["properties"]["crc32c"] = match[1]
        if "answer" not in session:  # asked again after a lost answer, a finished session answers as before
            session["answer"] = self._insert(
                session["bucket"], session["name"], session["properties"], session["query"], session["data"]
            )
        return session["answer"]

    def _insert(self, bucket: str, name: str, properties: dict[str, Any], query: dict[str, str], data: bytes) -> Answer:
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
            **({} if self.omits_defaults and not stored.data else {"size": str(len(stored.data))}),
            "crc32c": crc32c,
            "md5Hash": md5,
            "etag": f"etag-{stored.generation}",
            "timeCreated": stored.updated,
            "updated": stored.updated,
            "storageClass": "STANDARD",
            "mediaLink": f"{path}?generation={stored.generation}&alt=media",
            **stored.properties,
        }


def _json(status: int, value: dict[str, Any]) -> Answer:
    return Answer(status, json.dumps(value).encode(), {"Content-Type": "application/json; charset=UTF-8"})


def _error(status: int, message: str) -> Answer:
    return _json(status, {"error": {"code": status, "message": message, "errors": [{"message": message}]}})


def _denied(permission: str) -> Answer:
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
