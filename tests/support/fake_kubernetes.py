"""A Kubernetes API server on loopback: its outside is like that of the real one, and what it does can be told.

It answers discovery, get, list, watch, server-side apply, delete, access reviews, logs and the pods' proxy over HTTP,
in the words of a kube-apiserver 1.36. What controllers do is done at once: sets have pods, jobs complete.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_http import KINDS, Manifest, serve, status_object


def use_kubeconfig(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Make it the kubeconfig; the library has read where it is when it was imported."""
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@dataclass
class Failure:
    """What is answered instead, so many times, to requests of a method whose path has some text."""

    method: str
    text: str
    status: int
    body: Manifest
    headers: dict[str, str] = field(default_factory=dict)
    times: int = 1


@dataclass
class Hang:
    """Requests of a method whose path has some text, so many: accepted, and never answered to the end."""

    method: str
    text: str
    times: int
    in_body: bool


@dataclass
class FakeKubernetes:
    """The server; `kubeconfig` is the path of a file that leads to it.

    Attributes:
        objects: all there are, by plural, namespace and name.
        applied: each apply that was no dry run, in order, as `kind/name`.
        denied: verb and plural of each right that nobody has.
        broken: by the name of a set, the `state` of its pods' containers, which are not ready then.
        pages: by a pod's name, what its `/metrics` answers.
        logs: by a pod's name, its lines.
        on_watch: called when somebody watches, before an answer; what the test makes time pass with.
        drop_watches: whether a watch breaks off in the middle of a line.
        closing: set when the server ends, which requests that hang wait for.
    """

    folder: Path
    objects: dict[tuple[str, str, str], Manifest] = field(default_factory=dict)
    applied: list[str] = field(default_factory=list)
    denied: set[tuple[str, str]] = field(default_factory=set)
    broken: dict[str, Manifest] = field(default_factory=dict)
    pages: dict[str, str] = field(default_factory=dict)
    logs: dict[str, list[str]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)
    hangs: list[Hang] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    on_watch: Callable[[], None] = lambda: None
    drop_watches: bool = False
    fields: dict[tuple[str, str, str], dict[str, Manifest]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lock = threading.RLock()
        self._numbers = itertools.count(1)
        self.closing = threading.Event()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = 1 << 16  # head and body in one piece: in two, TCP makes the second wait

            def do_GET(self) -> None:
                serve(fake, self)

            def do_PATCH(self) -> None:
                serve(fake, self)

            def do_POST(self) -> None:
                serve(fake, self)

            def do_DELETE(self) -> None:
                serve(fake, self)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(self.config(self.server.server_address[1])))

    @staticmethod
    def config(port: int) -> Manifest:
        """A kubeconfig of two contexts, `here` and `nowhere`."""
        servers = {"here": f"http://127.0.0.1:{port}", "nowhere": "http://127.0.0.1:1"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": n, "cluster": {"server": url}} for n, url in servers.items()],
            "users": [{"name": "user", "user": {"token": "hidden-token"}}],
            "contexts": [{"name": n, "context": {"cluster": n, "user": "user"}} for n in servers],
            "current-context": "here",
        }

    def close(self) -> None:
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def fail(self, method: str, text: str, status: int, message: str = "", times: int = 1, **more: Any) -> None:
        """Answer so many requests with a failure instead; `headers` and `causes` may be among the rest."""
        details = {"causes": more["causes"]} if "causes" in more else {}
        body = {"kind": "Status", "status": "Failure", "message": message, "code": status, "details": details}
        self.failures.append(Failure(method, text, status, body, more.get("headers", {}), times))

    def hang(self, method: str, text: str, times: int = 99, *, in_body: bool = False) -> None:
        """Accept so many requests and never answer; or begin the answer, and never end it."""
        self.hangs.append(Hang(method, text, times, in_body))

    def get(self, plural: str, name: str, namespace: str = "branchy") -> Manifest:
        return self.objects[plural, namespace, name]

    def names(self, plural: str, namespace: str = "branchy") -> list[str]:
        return sorted(name for kind, ns, name in self.objects if (kind, ns) == (plural, namespace))

    def put(self, manifest: Manifest, manager: str = "kubectl") -> Manifest:
        """An object that somebody has made by other means, or fields that they have set."""
        with self._lock:
            return self._apply(manifest, manager, force=True)

    # --- what the API server does ------------------------------------------------------------------------------------

    def apply(self, manifest: Manifest, query: dict[str, str]) -> tuple[int, Manifest]:
        where = _where(manifest)
        assert query["fieldValidation"] == "Strict"
        if where[1] and ("namespaces", "", where[1]) not in self.objects:
            return 404, status_object(404, f'namespaces "{where[1]}" not found')
        conflicts = [] if query["force"] == "true" else self._conflicts(manifest, query["fieldManager"])
        if conflicts:
            return 409, status_object(409, f"Apply failed with {len(conflicts)} conflict", conflicts)
        live = self.objects.get(where)
        if live is not None and (forbidden := _immutable(live, manifest)):
            return 422, status_object(422, f"{where[2]} is invalid", [forbidden])
        if "dryRun" in query:
            kept = copy.deepcopy((self.objects, self.fields))
            result = self._apply(manifest, query["fieldManager"], force=True)
            self.objects, self.fields = kept
            return 200, result
        self.applied.append(f"{manifest['kind']}/{where[2]}")
        return 200, self._apply(manifest, query["fieldManager"], force=True)

    def _conflicts(self, manifest: Manifest, manager: str) -> list[Manifest]:
        theirs = {name: value for name, value in self.fields.get(_where(manifest), {}).items() if name != manager}
        wanted = dict(_leaves(manifest))
        return [
            {"reason": "FieldManagerConflict", "field": path, "message": f'conflict with "{other}"'}
            for other, fields in theirs.items()
            for path, value in _leaves(fields)
            if path in wanted and wanted[path] != value
        ]

    def _apply(self, manifest: Manifest, manager: str, *, force: bool) -> Manifest:
        where = _where(manifest)
        managers = self.fields.setdefault(where, {})
        before = managers.get(manager, {})
        live = self.objects.get(where, {"metadata": {"uid": f"uid-{next(self._numbers)}"}})
        after = _merged(live, before, manifest)
        if after != live:
            after["metadata"]["resourceVersion"] = str(next(self._numbers))
            after["metadata"]["generation"] = live["metadata"].get("generation", 0) + (
                after.get("spec") != live.get("spec")
            )
        managers[manager] = copy.deepcopy(manifest)
        after.setdefault("spec" if where[0] != "namespaces" else "status", {})
        if where[0] == "namespaces":
            after["status"] = {"phase": "Active"} | after["status"]
        self.objects[where] = after
        self.settle(after)
        return copy.deepcopy(after)

    def settle(self, live: Manifest) -> None:
        """What the controllers would do sooner or later: pods, and a status."""
        meta, spec = live["metadata"], live.get("spec", {})
        if live["kind"] == "Job" and not spec.get("suspend"):
            live["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
        if live["kind"] != "StatefulSet":
            return
        replicas, state = spec.get("replicas", 1), self.broken.get(meta["name"])
        ready = 0 if state else replicas
        revision = str(meta["generation"])
        live["status"] = {
            "observedGeneration": meta["generation"],
            "replicas": replicas,
            "readyReplicas": ready,
            "updatedReplicas": replicas,
            "currentRevision": revision,
            "updateRevision": revision,
        }
        for claim in spec.get("volumeClaimTemplates", []):
            for number in range(replicas):
                name = f"{claim['metadata']['name']}-{meta['name']}-{number}"
                self.objects["persistentvolumeclaims", meta["namespace"], name] = {
                    "metadata": {"name": name, "namespace": meta["namespace"]}
                }
        mine = ("pods", meta["namespace"])
        for pod in [k for k in self.objects if k[:2] == mine and k[2].startswith(f"{meta['name']}-")]:
            del self.objects[pod]
        for number in range(replicas):
            name = f"{meta['name']}-{number}"
            self.objects["pods", meta["namespace"], name] = _pod(name, live, state)

    def delete(self, where: tuple[str, str, str]) -> tuple[int, Manifest]:
        if where not in self.objects:
            return 404, status_object(404, f'{where[0]} "{where[2]}" not found')
        gone = self.objects.pop(where)
        self.fields.pop(where, None)
        uid = gone["metadata"].get("uid")
        for key in [k for k, o in self.objects.items() if _owner(o) == uid and uid is not None]:
            del self.objects[key]
        if where[0] == "namespaces":
            for key in [k for k in self.objects if k[1] == where[2]]:
                del self.objects[key]
        return 200, gone


def _where(manifest: Manifest) -> tuple[str, str, str]:
    plural, _ = KINDS[manifest["apiVersion"]][manifest["kind"]]
    return plural, manifest["metadata"].get("namespace", ""), manifest["metadata"]["name"]


def _owner(manifest: Manifest) -> str | None:
    owners = manifest["metadata"].get("ownerReferences") or [{}]
    return owners[0].get("uid")


def _pod(name: str, owner: Manifest, state: Manifest | None) -> Manifest:
    template = owner["spec"]["template"]
    container = {"name": template["spec"]["containers"][0]["name"], "state": state or {"running": {}}}
    if state is not None and "lastState" in state:
        container |= {"state": state["state"], "lastState": state["lastState"]}
    return {
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "ownerReferences": [{"uid": owner["metadata"]["uid"]}],
        },
        "spec": template["spec"],
        "status": {
            "phase": "Pending" if state else "Running",
            "conditions": [{"type": "Ready", "status": "False" if state else "True"}],
            "containerStatuses": [container],
        },
    }


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            if path or name not in ("apiVersion", "kind"):
                yield from _leaves(each, f"{path}.{name}")
    elif path not in (".metadata.name", ".metadata.namespace"):
        yield path, value


def _merged(live: Any, before: Any, new: Any) -> Any:
    if not (isinstance(live, dict) and isinstance(new, dict)):
        return copy.deepcopy(new)
    known = before if isinstance(before, dict) else {}
    kept = {name: copy.deepcopy(value) for name, value in live.items() if name in new or name not in known}
    return kept | {name: _merged(live.get(name), known.get(name), value) for name, value in new.items()}


def _immutable(live: Manifest, manifest: Manifest) -> Manifest | None:
    if live["kind"] == "Job" and live["spec"].get("template") != manifest["spec"].get("template"):
        return {"field": "spec.template", "message": "Invalid value: {...}: field is immutable"}
    old, new = (m.get("spec", {}).get("serviceName") for m in (live, manifest))
    if live["kind"] == "StatefulSet" and old != new:
        words = "Forbidden: updates to statefulset spec for fields other than 'replicas', ... are forbidden"
        return {"field": "spec", "message": words}
    return None
