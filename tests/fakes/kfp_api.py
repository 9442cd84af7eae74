"""A Kubeflow Pipelines API server on loopback: the v2beta1 REST API as the real client uses it, with planned faults.

    with FakeKfpApi(multi_user=True, token="secret") as api:
        client = kfp.Client(host=api.url, existing_token="secret")
        api.fail(Fault("status", status=503, method="POST", contains="/runs", when="after"))

State is kept; names, namespaces, paging, filters, parameter types and cron are checked as the server does. Request and
response fields are those of the models in `kfp_server_api`; any other one is a defect of the caller or of this file.

Source: https://www.kubeflow.org/docs/components/pipelines/reference/api/kubeflow-pipeline-api-spec/
"""

import email
import itertools
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

MAX_PAGE = 200
DEFAULT_PAGE = 20
NEVER = "1970-01-01T00:00:00Z"
FINISHED = ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELED")
OPERATIONS = {1: "EQUALS", 2: "NOT_EQUALS", 8: "IN", 9: "IS_SUBSTRING"}
TYPES: dict[str, tuple[type, ...]] = {
    "NUMBER_DOUBLE": (int, float),
    "NUMBER_INTEGER": (int, float),
    "STRING": (str,),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
_TYPE_WORDS = {
    "NUMBER_DOUBLE": ("double or integer", "parameter value is not of number"),
    "NUMBER_INTEGER": ("double or integer", "parameter value is not of number"),
    "STRING": ("string", "input parameter is not of string"),
    "BOOLEAN": ("bool", "input parameter is not of bool"),
    "LIST": ("list", "input parameter is not of list"),
    "STRUCT": ("struct", "input parameter is not of struct"),
}
"""How version 2.17 words it; a string for a number is refused, where the UI's form converts what is typed."""
GRPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 501: 12, 503: 14, 504: 4}

Frame = tuple[str, Mapping[str, str]]
"""A run's state and its steps' states at one poll."""


@dataclass
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: `status` (an error answer), `drop` (connection closed without an answer), `stall` (an answer after
            `seconds`), `html` (a login page instead of JSON) or `garbage` (a body that is not JSON).
        status: HTTP status of `status`.
        when: `before` the request takes effect, or `after`.
        method: Only requests with this method; empty for all.
        contains: Only requests whose path contains this.
        times: How often; -1 for ever.
        skip: Matching requests that pass before the first fault.
        seconds: Of `stall`.
        headers: Sent with the answer, for example `Retry-After`.
    """

    kind: str
    status: int = 503
    when: str = "before"
    method: str = ""
    contains: str = ""
    times: int = 1
    skip: int = 0
    seconds: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)


class ApiError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def fields_of(model: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values, after checking that each is a field of the model."""
    known = set(getattr(kfp_server_api, model).attribute_map.values())
    if unknown := set(values) - known:
        raise ApiError(400, f'unknown field "{sorted(unknown)[0]}" of {model}')
    return dict(values)


class FakeKfpApi:
    """The server and its state.

    Attributes:
        pipelines: By id, as the API shows them; likewise `versions`, `experiments`, `runs` and `recurring_runs`.
        artifacts: What the UI's server beside the API reads for a browser, by source, bucket and key; None without a UI.
        requests: `METHOD path` of every request that arrived, in order.
        script: Frames of the runs to come; each GET of a run shows the next one, the last one stays.
        multi_user: Whether resources belong to namespaces.
        kubernetes_store: Whether pipelines and versions are Kubernetes resources (`--pipelinesStoreKubernetes`): names are
            then resources' names, unique for all versions of a namespace, and `apply` makes them as kubectl does.
        token: Bearer token to ask for; empty for none.
        cookie: Cookie to ask for; empty for none.
        login_page: Answer what is not authenticated with a redirect to a page, as an identity proxy does, not with 401.
        namespaces: Those the caller may use; others are answered with 403.
    """

    def __init__(
        self,
        *,
        multi_user: bool = False,
        token: str = "",
        cookie: str = "",
        login_page: bool = False,
        kubernetes_store: bool = False,
    ) -> None:
        self.kubernetes_store = kubernetes_store
        self.multi_user, self.token, self.cookie, self.login_page = multi_user, token, cookie, login_page
        self.namespaces: tuple[str, ...] = ("team", "kubeflow")
        self.pipelines: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.recurring_runs: dict[str, dict[str, Any]] = {}
        self.artifacts: dict[tuple[str | None, ...], Any] | None = None
        self.requests: list[str] = []
        self.script: list[Frame] = [("PENDING", {}), ("RUNNING", {}), ("SUCCEEDED", {})]
        self._scripts: dict[str, list[Frame]] = {}
        self._actions: dict[int, Callable[[], None]] = {}
        self._polls = 0
        self._connections: set[socket.socket] = set()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._serials, self._ticks = itertools.count(), itertools.count()
        self._started = datetime.now(UTC)
        self._server: ThreadingHTTPServer | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """Address of the API, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> Self:
        """Listen; after `stop`, on the same port again."""
        api = self

        class Handler(_Handler):
            owner = api

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            allow_reuse_address = True

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Stop listening and break what is open; the state stays."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in tuple(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fail(self, *faults: Fault) -> None:
        """Plan faults; the first that matches a request happens."""
        with self._lock:
            self._faults.extend(faults)

    def fault(self, method: str, path: str, when: str) -> Fault | None:
        """Return the fault that this request meets, if any, and use it up."""
        with self._lock:
            for fault in self._faults:
                if (
                    fault.when != when
                    or fault.times == 0
                    or fault.method not in ("", method)
                    or fault.contains not in path
                ):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                return fault
        return None

    def apply(self, *resources: dict[str, Any]) -> None:
        """Take Pipeline and PipelineVersion resources as `kubectl apply` brings them, past the API."""
        for resource in resources:
            name, spec = resource["metadata"]["name"], resource["spec"]
            if not re.fullmatch(_DNS_NAME, name):
                raise ValueError(f"{name} is no resource's name")
            shown = {"name": name, "display_name": spec.get("displayName") or name, "created_at": self._now()}
            shown["description"] = spec.get("description", "")
            if resource["kind"] == "Pipeline":
                shown |= {"pipeline_id": self._new_id(), "namespace": ""}
                self.pipelines[shown["pipeline_id"]] = fields_of("V2beta1Pipeline", shown)
                continue
            pipeline = next(p for p in self.pipelines.values() if p["name"] == spec["pipelineName"])
            shown |= {"pipeline_id": pipeline["pipeline_id"], "pipeline_version_id": self._new_id()}
            shown["pipeline_spec"] = {"pipeline_spec": spec["pipelineSpec"], "platform_spec": spec.get("platformSpec")}
            self.versions[shown["pipeline_version_id"]] = fields_of("V2beta1PipelineVersion", shown)

    def fire(self, recurring_run_id: str, *, script: list[Frame] | None = None) -> str:
        """Let a recurring run start a run now; return the run's id."""
        with self._lock:
            recurring = self.recurring_runs[recurring_run_id]
            body = {name: recurring[name] for name in ("experiment_id", "pipeline_version_reference", "runtime_config")}
            run = self._add_run({**body, "display_name": f"{recurring['display_name']}-1"}, script)
            run["recurring_run_id"] = recurring_run_id
            return run["run_id"]

    def play(self, *frames: Frame) -> None:
        """Let every run go on with these frames."""
        with self._lock:
            self._scripts = {run_id: list(frames) for run_id in self.runs}

    def finish(self, run_id: str, state: str = "SUCCEEDED") -> None:
        """End a run."""
        with self._lock:
            self._scripts[run_id] = [(state, {})]
            self._advance(run_id)

    def terminate(self, run_id: str) -> None:
        """Cancel a run, as somebody does in the UI."""
        with self._lock:
            self._terminate_run(run_id, {}, {})

    def after_poll(self, number: int, action: Callable[[], None]) -> None:
        """Do something, in a thread of its own, once a run was looked at that many times."""
        self._actions[number] = action

    def handle(self, method: str, path: str, query: dict[str, str], headers: Mapping[str, str], body: bytes) -> Any:
        """Return the JSON answer to a request, or raise `ApiError`."""
        with self._lock:
            self.requests.append(f"{method} {path}")
            self._authenticate(headers)
            if path == "/artifacts/get" and self.artifacts is not None:
                return self._found(self.artifacts, tuple(query.get(n) for n in ("source", "bucket", "key")), "Object")
            for known_method, pattern, function in _ROUTES:
                match = re.fullmatch(pattern, path)
                if match and method == known_method:
                    arguments = match.groups()
                    if method == "POST":
                        upload = path.endswith(("/upload", "/upload_version"))
                        content = _uploaded(headers, body) if upload else json.loads(body or b"{}")
                        return function(self, *arguments, query, content)
                    return function(self, *arguments, query)
            raise ApiError(404, "Not Found")

    def _authenticate(self, headers: Mapping[str, str]) -> None:
        bearer = headers.get("authorization") == f"Bearer {self.token}"
        cookie = self.cookie and self.cookie in headers.get("cookie", "")
        if (self.token and not bearer and not cookie) or (self.cookie and not self.token and not cookie):
            raise ApiError(302 if self.login_page else 401, "Request header error: there is no user identity header")

    def _namespace(self, asked: str | None) -> str:
        if not self.multi_user:
            return ""
        if not asked:
            raise ApiError(400, "Namespace cannot be empty in multi-user mode")
        if asked not in self.namespaces:
            raise ApiError(403, f"Failed to authorize with API: User 'someone' is not authorized in namespace {asked}")
        return asked

    def _now(self) -> str:
        # The server stores whole seconds; here each call is a second later, so that the newest of two is known.
        return (self._started + timedelta(seconds=next(self._ticks))).strftime("%Y-%m-%dT%H:%M:%SZ")

    def _new_id(self) -> str:
        return str(uuid.UUID(int=next(self._serials) + (1 << 96)))

    # The verbs. Arguments: parts of the path, the query, and for POST the body.

    def _healthz(self, _query: dict) -> dict:
        return fields_of("V2beta1GetHealthzResponse", {"multi_user": self.multi_user})

    def _list_pipelines(self, query: dict) -> dict:
        namespace = query.get("namespace") or ""
        if self.multi_user and namespace:
            self._namespace(namespace)
        rows = [p for p in self.pipelines.values() if p.get("namespace", "") == (namespace if self.multi_user else "")]
        return _page("pipelines", rows, query)

    def _create_pipeline(self, _query: dict, body: dict) -> dict:
        asked = fields_of("V2beta1Pipeline", body)
        namespace = self._namespace(asked["namespace"]) if self.multi_user and asked.get("namespace") else ""
        name = asked.get("name") or asked.get("display_name")
        if not name:
            raise ApiError(400, "Failed to create a pipeline: pipeline's name cannot be empty")
        self._check_name(name)
        if any(p["name"] == name and p["namespace"] == namespace for p in self.pipelines.values()):
            raise ApiError(409, f"The name {name} already exist. Please specify a new name")
        made = {"pipeline_id": self._new_id(), "display_name": name, "created_at": self._now(), **asked}
        made |= {"name": name, "namespace": namespace}
        self.pipelines[made["pipeline_id"]] = made
        return made

    def _check_name(self, name: str) -> None:
        if self.kubernetes_store and not re.fullmatch(_DNS_NAME, name):
            raise ApiError(400, f"Invalid name {name}: use 'display_name' for human-readable labels")

    def _list_versions(self, pipeline_id: str, query: dict) -> dict:
        self._found(self.pipelines, pipeline_id, "Pipeline")
        rows = [v for v in self.versions.values() if v["pipeline_id"] == pipeline_id]
        return _page("pipeline_versions", rows, query)

    def _upload_version(self, query: dict, document: str) -> dict:
        pipeline = self.pipelines.get(query.get("pipelineid", ""))
        if pipeline is None:
            raise ApiError(400, "Failed to create a pipeline version")
        name = query.get("name") or "pipeline.yaml"
        self._check_name(name)
        rivals = [
            v for v in self.versions.values() if self.kubernetes_store or v["pipeline_id"] == pipeline["pipeline_id"]
        ]
        if any(v["name"] == name for v in rivals):
            raise ApiError(409, "Failed to create a pipeline version")
        documents = list(yaml.load_all(document, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
        try:
            json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        except json_format.ParseError as error:
            raise ApiError(400, f"Failed to parse the pipeline spec: {error}") from error
        spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]} if documents[1:] else documents[0]
        made = {
            "pipeline_id": pipeline["pipeline_id"],
            "pipeline_version_id": self._new_id(),
            "name": name,
            "display_name": query.get("display_name") or name,
            "description": query.get("description", ""),
            "created_at": self._now(),
            "pipeline_spec": spec,
        }
        self.versions[made["pipeline_version_id"]] = fields_of("V2beta1PipelineVersion", made)
        return made

    def _list_experiments(self, query: dict) -> dict:
        namespace = self._namespace(query.get("namespace"))
        return _page("experiments", [e for e in self.experiments.values() if e["namespace"] == namespace], query)

    def _create_experiment(self, _query: dict, body: dict) -> dict:
        asked = fields_of("V2beta1Experiment", body)
        namespace = self._namespace(asked.get("namespace"))
        name = asked.get("display_name")
        if any(e["display_name"] == name and e["namespace"] == namespace for e in self.experiments.values()):
            raise ApiError(409, f"The name {name} already exists. Please specify a new name")
        made = {**asked, "experiment_id": self._new_id(), "namespace": namespace, "created_at": self._now()}
        made["storage_state"] = "AVAILABLE"
        self.experiments[made["experiment_id"]] = made
        return made

    def _list_runs(self, query: dict) -> dict:
        rows = list(self.runs.values())
        if experiment := query.get("experiment_id"):
            rows = [run for run in rows if run["experiment_id"] == experiment]
        else:
            namespace = self._namespace(query.get("namespace"))
            rows = [r for r in rows if self.experiments[r["experiment_id"]]["namespace"] == namespace]
        return _page("runs", rows, query)

    def _create_run(self, _query: dict, body: dict) -> dict:
        return self._add_run(fields_of("V2beta1Run", body), None)

    def _add_run(self, body: dict, script: list[Frame] | None) -> dict:
        self._check_start(body)
        if not body.get("display_name"):
            raise ApiError(400, "The run name is empty. Please specify a valid name")
        made = {
            **body,
            "run_id": self._new_id(),
            "created_at": self._now(),
            "finished_at": NEVER,
            "storage_state": "AVAILABLE",
        }
        made |= {"state": "PENDING", "scheduled_at": made["created_at"]}
        made["state_history"] = [{"update_time": made["created_at"], "state": "PENDING"}]
        self.runs[made["run_id"]] = made
        self._scripts[made["run_id"]] = list(script or self.script)
        return made

    def _check_start(self, body: dict) -> None:
        if body.get("experiment_id") not in self.experiments:
            raise ApiError(404, f"Experiment {body.get('experiment_id')} not found")
        self._namespace(self.experiments[body["experiment_id"]]["namespace"])
        reference = fields_of("V2beta1PipelineVersionReference", body.get("pipeline_version_reference") or {})
        version = self._found(self.versions, reference.get("pipeline_version_id"), "PipelineVersion")
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        given = fields_of("V2beta1RuntimeConfig", body.get("runtime_config") or {}).get("parameters") or {}
        declared = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        if len(json.dumps(given)) > 10_000:
            raise ApiError(400, "The input parameter length exceed maximum size of 10000")
        if extra := sorted(set(given) - set(declared)):
            raise ApiError(400, f"parameter(s) provided are not required by pipeline: {', '.join(extra)}")
        for name, rule in declared.items():
            if name not in given:
                if not rule.get("isOptional") and "defaultValue" not in rule:
                    raise ApiError(
                        400, f"parameter {name} is not optional, yet has neither default value nor user value"
                    )
                continue
            value, kind = given[name], rule["parameterType"]
            if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "BOOLEAN"):
                wanted, got = _TYPE_WORDS[kind]
                raise ApiError(400, f"input parameter {name} requires type {wanted}, but the {got} value type")
            if rule.get("literals") and value not in rule["literals"]:
                raise ApiError(
                    400, f'input parameter "{name}" value {value!r} does not match any of the allowed literal values'
                )

    def _get_run(self, run_id: str, _query: dict) -> dict:
        self._found(self.runs, run_id, "Run")
        self._advance(run_id)
        self._polls += 1
        if action := self._actions.pop(self._polls, None):
            threading.Thread(target=action, daemon=True).start()
        return self.runs[run_id]

    def _advance(self, run_id: str) -> None:
        script, run = self._scripts[run_id], self.runs[run_id]
        state, steps = script.pop(0) if len(script) > 1 else script[0]
        if state != run["state"]:
            status = fields_of("V2beta1RuntimeStatus", {"update_time": self._now(), "state": state})
            run["state_history"] = [*run.get("state_history", ()), status]
        run["state"] = state
        if state in FINISHED and run["finished_at"] == NEVER:
            run["finished_at"] = self._now()
        details = [
            fields_of(
                "V2beta1PipelineTaskDetail",
                {"run_id": run_id, "task_id": str(n), "display_name": name.partition("#")[0], "state": step_state},
            )
            for n, (name, step_state) in enumerate(steps.items())
        ]
        if details:
            run["run_details"] = {"task_details": details}

    def _terminate_run(self, run_id: str, _query: dict, _body: dict) -> dict:
        self._found(self.runs, run_id, "Run")
        # What a server really does: the controller ends the workflow, and its end is reported as a failure.
        self._scripts[run_id] = [("CANCELING", {}), ("FAILED", {})]
        return {}

    def _list_recurring(self, query: dict) -> dict:
        namespace = self._namespace(query.get("namespace"))
        return _page("recurringRuns", [r for r in self.recurring_runs.values() if r["namespace"] == namespace], query)

    def _create_recurring(self, _query: dict, body: dict) -> dict:
        asked = fields_of("V2beta1RecurringRun", body)
        if not 1 <= int(asked.get("max_concurrency") or 0) <= 10:
            raise ApiError(400, "Max concurrency of a recurring run must be at least 1 and at most 10")
        cron = asked["trigger"]["cron_schedule"]["cron"]
        if not cron.startswith("@") and len(cron.split()) not in (5, 6):
            raise ApiError(400, f"Schedule cron is not a supported format. Error: Expected 5 to 6 fields: {cron}")
        self._check_start(asked)
        enabled = asked.get("mode") == "ENABLE"
        made = {**asked, "recurring_run_id": self._new_id(), "created_at": self._now(), "updated_at": self._now()}
        made |= {"max_concurrency": str(asked["max_concurrency"]), "no_catchup": asked.get("no_catchup", False)}
        made["namespace"] = self.experiments[asked["experiment_id"]]["namespace"]
        made["status"] = "ENABLED" if enabled else "DISABLED"
        self.recurring_runs[made["recurring_run_id"]] = made
        return made

    def _delete_recurring(self, recurring_run_id: str, query: dict) -> dict:
        self._found(self.recurring_runs, recurring_run_id, "Job")
        del self.recurring_runs[recurring_run_id]
        if query.get("propagation_policy") != "ORPHAN":
            for run_id, run in self.runs.items():
                if run.get("recurring_run_id") == recurring_run_id and run["state"] not in FINISHED:
                    self._scripts[run_id] = [("FAILED", {})]
        return {}

    def _set_mode(self, recurring_run_id: str, verb: str, _query: dict, _body: dict) -> dict:
        recurring = self._found(self.recurring_runs, recurring_run_id, "Job")
        recurring |= {"mode": verb.upper(), "status": f"{verb.upper()}D", "updated_at": self._now()}
        return {}

    def _found(self, table: dict, key: Any, kind: str) -> dict:
        if key not in table:
            raise ApiError(404, f"{kind} {key} not found")
        return table[key]


_ID = r"([^/:]+)"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_DNS_NAME = rf"{_LABEL}(\.{_LABEL})*"
_ROUTES: list[tuple[str, str, Callable[..., Any]]] = [
    (method, f"/apis/v2beta1/{pattern}", function)
    for method, pattern, function in (
        ("GET", "healthz", FakeKfpApi._healthz),
        ("GET", "pipelines", FakeKfpApi._list_pipelines),
        ("POST", "pipelines", FakeKfpApi._create_pipeline),
        ("POST", "pipelines/upload_version", FakeKfpApi._upload_version),
        ("GET", f"pipelines/{_ID}/versions", FakeKfpApi._list_versions),
        ("GET", "experiments", FakeKfpApi._list_experiments),
        ("POST", "experiments", FakeKfpApi._create_experiment),
        ("GET", "runs", FakeKfpApi._list_runs),
        ("POST", "runs", FakeKfpApi._create_run),
        ("GET", f"runs/{_ID}", FakeKfpApi._get_run),
        ("POST", f"runs/{_ID}:terminate", FakeKfpApi._terminate_run),
        ("GET", "recurringruns", FakeKfpApi._list_recurring),
        ("POST", "recurringruns", FakeKfpApi._create_recurring),
        ("DELETE", f"recurringruns/{_ID}", FakeKfpApi._delete_recurring),
        ("POST", f"recurringruns/{_ID}:(enable|disable)", FakeKfpApi._set_mode),
    )
]


def _uploaded(headers: Mapping[str, str], body: bytes) -> str:
    message = email.message_from_bytes(b"Content-Type: " + headers["content-type"].encode() + b"\r\n\r\n" + body)
    for part in message.get_payload():
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True).decode()
    raise ApiError(400, "Failed to read pipeline from file")


def _page(name: str, rows: list[dict], query: dict) -> dict:
    for predicate in json.loads(query.get("filter") or "{}").get("predicates", []):
        operation = OPERATIONS.get(predicate["operation"], predicate["operation"])
        wanted = predicate.get("string_value", predicate.get("stringValue"))
        if operation != "EQUALS":
            raise ApiError(400, f"operation {operation} is not part of this fake")
        rows = [row for row in rows if row.get(predicate["key"], "") == wanted]
    key, _, direction = (query.get("sort_by") or "created_at").partition(" ")
    rows = sorted(rows, key=lambda row: row[key], reverse=direction == "desc")
    size = min(int(query.get("page_size") or 0) or DEFAULT_PAGE, MAX_PAGE)
    start = int(query.get("page_token") or 0)
    answer: dict[str, Any] = {name: rows[start : start + size], "total_size": len(rows)}
    if len(rows) > start + size:
        answer["next_page_token"] = str(start + size)
    return answer if rows else {}


class _Handler(BaseHTTPRequestHandler):
    owner: FakeKfpApi
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.owner._connections.add(self.connection)

    def finish(self) -> None:
        self.owner._connections.discard(self.connection)
        super().finish()

    def log_message(self, *_: object) -> None:
        pass

    def _serve(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        if url.path == "/dex/auth":
            return self._send(200, b"<html><title>Log in</title></html>", "text/html")
        fault = self.owner.fault(self.command, url.path, "before")
        if fault and fault.kind != "stall":
            return self._misbehave(fault)
        if fault:
            time.sleep(fault.seconds)
        try:
            status, answer = 200, self.owner.handle(self.command, url.path, query, headers, body)
        except ApiError as error:
            if error.status == 302:
                return self._send(302, b"", "text/html", {"Location": "/dex/auth"})
            status, answer = error.status, _error(error.status, str(error))
        fault = self.owner.fault(self.command, url.path, "after")
        if fault and fault.kind != "stall":
            return self._misbehave(fault)
        if fault:
            time.sleep(fault.seconds)
        return self._send(status, json.dumps(answer).encode(), "application/json")

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    def _misbehave(self, fault: Fault) -> None:
        if fault.kind == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.kind == "html":
            self._send(200, b"<html><title>Log in</title></html>", "text/html", fault.headers)
        elif fault.kind == "garbage":
            self._send(200, b'{"pipelines": [', "application/json", fault.headers)
        else:
            answer = json.dumps(_error(fault.status, "planned")).encode()
            self._send(fault.status, answer, "application/json", fault.headers)

    def _send(self, status: int, body: bytes, kind: str, headers: Mapping[str, str] | None = None) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):  # the caller's time-out came first
            self.close_connection = True


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": message, "code": GRPC_CODES.get(status, 2), "message": message, "details": []}
