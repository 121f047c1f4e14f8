"""What the fake Kubernetes API server makes of HTTP requests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

Manifest = dict[str, Any]
KINDS: dict[str, dict[str, tuple[str, bool]]] = {
    "v1": {
        "Namespace": ("namespaces", False),
        "ConfigMap": ("configmaps", True),
        "Secret": ("secrets", True),
        "Service": ("services", True),
        "Pod": ("pods", True),
        "Event": ("events", True),
        "PersistentVolumeClaim": ("persistentvolumeclaims", True),
    },
    "apps/v1": {"StatefulSet": ("statefulsets", True)},
    "batch/v1": {"Job": ("jobs", True)},
    "policy/v1": {"PodDisruptionBudget": ("poddisruptionbudgets", True)},
    "networking.k8s.io/v1": {"NetworkPolicy": ("networkpolicies", True)},
}
OWNED = re.compile(r"^/apis?/(?P<version>(?:[\w.]+/)?v\w+)(?:/namespaces/(?P<ns>[^/]+)(?=/))?/(?P<rest>.+)$")


def serve(fake: FakeKubernetes, request: BaseHTTPRequestHandler) -> None:
    """Answer one request, or let it hang or fail as the server was told."""
    split = urlsplit(request.path)
    query, path, method = dict(parse_qsl(split.query)), unquote(split.path), request.command
    body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
    with fake._lock:
        fake.asked.append(f"{method} {path}")
        assert request.headers["Authorization"] == "Bearer hidden-token"
        for failure in fake.failures:
            if failure.times and failure.method == method and failure.text in request.path:
                failure.times -= 1
                _answer(request, failure.status, failure.body, failure.headers)
                return
        hang = next((h for h in fake.hangs if h.times and h.method == method and h.text in request.path), None)
        if hang is not None:
            hang.times -= 1
        elif query.get("watch") == "true":
            fake.on_watch()
            _watch(fake, request)
            return
        else:
            status, found = _found(fake, method, path, query, body)
    if hang is not None:
        _hang(fake, request, hang.in_body)
    else:
        _answer(request, status, found)


def _hang(fake: FakeKubernetes, request: BaseHTTPRequestHandler, in_body: bool) -> None:
    request.close_connection = True
    if in_body:
        request.send_response(200)
        request.send_header("Content-Length", "100")
        request.end_headers()
        request.wfile.write(b"{")
        request.wfile.flush()
    fake.closing.wait()


def _found(fake: FakeKubernetes, method: str, path: str, query: dict[str, str], body: bytes) -> tuple[int, Any]:
    if path == "/version":
        return 200, {"gitVersion": "v1.36.3"}
    if path.endswith("/selfsubjectaccessreviews"):
        wanted = json.loads(body)["spec"]["resourceAttributes"]
        return 201, {"status": {"allowed": (wanted["verb"], wanted["resource"]) not in fake.denied}}
    version = path.partition("/api/")[2] or path.partition("/apis/")[2]
    if version in KINDS:
        kinds = KINDS[version].items()
        listed = [{"name": plural, "kind": kind, "namespaced": spaced} for kind, (plural, spaced) in kinds]
        return 200, {"resources": [*listed, {"name": f"{listed[0]['name']}/status", "kind": "X", "namespaced": True}]}
    found = OWNED.match(path)
    if found is None or found["version"] not in KINDS:
        return 404, "404 page not found"
    plural, _, name = found["rest"].partition("/")
    name, _, sub = name.partition("/")
    where = (plural, found["ns"] or "", name)
    if sub == "log":
        lines = fake.logs.get(name)
        return (200, "".join(f"{line}\n" for line in lines)) if lines else (400, status_object(400, "no logs"))
    if sub.startswith("proxy"):
        page = fake.pages.get(name.partition(":")[0])
        return (200, page) if page is not None else (503, status_object(503, "no endpoints"))
    if method == "PATCH":
        return fake.apply(json.loads(body), query)
    if method == "DELETE":
        return fake.delete(where)
    if name:
        return (200, fake.objects[where]) if where in fake.objects else (404, status_object(404, f"{name} not found"))
    return 200, {"metadata": {"resourceVersion": "7"}, "items": list(_listed(fake, where, query))}


def _listed(fake: FakeKubernetes, where: tuple[str, str, str], query: dict[str, str]) -> Iterator[Manifest]:
    name, _, value = query.get("labelSelector", "=").partition("=")
    for (plural, namespace, _), each in fake.objects.items():
        labels = each["metadata"].get("labels", {})
        if (plural, namespace) == where[:2] and (not name or labels.get(name) == value):
            yield {k: v for k, v in each.items() if k not in ("kind", "apiVersion")}


def _watch(fake: FakeKubernetes, request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Transfer-Encoding", "chunked")
    request.send_header("Connection", "close")
    request.end_headers()
    if fake.drop_watches:
        request.wfile.write(b"40\r\n{")
    else:
        request.wfile.write(b"0\r\n\r\n")
    request.close_connection = True


def _answer(request: BaseHTTPRequestHandler, status: int, found: Any, headers: dict[str, str] | None = None) -> None:
    data = (found if isinstance(found, str) else json.dumps(found)).encode()
    request.send_response(status)
    for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
        request.send_header(name, value)
    request.end_headers()
    request.wfile.write(data)


def status_object(status: int, message: str, causes: list[Manifest] | None = None) -> Manifest:
    """What the server answers instead of an object when something is wrong."""
    details = {"causes": causes} if causes else {}
    return {"kind": "Status", "status": "Failure", "message": message, "code": status, "details": details}
