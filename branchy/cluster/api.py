"""What `branchy deploy` asks of an API server: objects read, applied, watched, deleted; rights, logs, a pod's pages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from branchy.cluster.objects import MANAGER, Manifest, key
from branchy.cluster.session import ApiError, Session
from branchy.errors import ClusterError

SLACK_S = 5.0
"""How much later than it was told to a server may end a watch."""


@dataclass(frozen=True, slots=True)
class Resource:
    """How a kind is asked for.

    Attributes:
        api_version: `GROUP/VERSION`, or `v1` for Kubernetes' first ones.
        kind: as objects name it.
        plural: as paths and rights name it.
        namespaced: whether its objects are in namespaces.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool

    @property
    def group(self) -> str:
        """Without the version; empty for Kubernetes' first ones."""
        return self.api_version.rpartition("/")[0]

    def path(self, namespace: str = "", name: str = "") -> str:
        """Of one object, or of all in a namespace, or of all there are."""
        root = f"/apis/{self.api_version}" if self.group else f"/api/{self.api_version}"
        where = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        return f"{root}{where}/{self.plural}" + (f"/{quote(name, safe=':')}" if name else "")


PODS = Resource("v1", "Pod", "pods", True)
CLAIMS = Resource("v1", "PersistentVolumeClaim", "persistentvolumeclaims", True)
EVENTS = Resource("v1", "Event", "events", True)
NAMESPACES = Resource("v1", "Namespace", "namespaces", False)
STATEFUL_SETS = Resource("apps/v1", "StatefulSet", "statefulsets", True)
JOBS = Resource("batch/v1", "Job", "jobs", True)


class Listing(NamedTuple):
    """Objects, and the moment that they are of."""

    items: list[Manifest]
    resource_version: str


class Api:
    """An API server.

    Args:
        session: that speaks with it.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._known: dict[str, dict[str, Resource]] = {}

    def version(self) -> str:
        """Of Kubernetes. Raises ClusterError where none answers; so do all of these."""
        return str(self.session.json("GET", "/version").get("gitVersion", "of an unknown version"))

    def resource(self, api_version: str, kind: str) -> Resource | None:
        """How a kind is asked for; None where the cluster has no such kind."""
        if api_version not in self._known:
            root = "/apis/" if "/" in api_version else "/api/"
            try:
                found = self.session.json("GET", root + api_version)["resources"]
            except ApiError as error:
                if error.status != HTTPStatus.NOT_FOUND:
                    raise
                found = []
            self._known[api_version] = {
                each["kind"]: Resource(api_version, each["kind"], each["name"], each["namespaced"])
                for each in found
                if "/" not in each["name"]  # status, scale and the like
            }
        return self._known[api_version].get(kind)

    def get(self, resource: Resource, namespace: str, name: str) -> Manifest | None:
        """One object; None where it is not there."""
        try:
            return self.session.json("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def listed(self, resource: Resource, namespace: str, labels: str = "", fields: str = "") -> Listing:
        """A namespace's objects of a kind, chosen by label and field selectors."""
        query = [(n, v) for n, v in (("labelSelector", labels), ("fieldSelector", fields)) if v]
        found = self.session.json("GET", resource.path(namespace), query)
        own = {"apiVersion": resource.api_version, "kind": resource.kind}  # the items of a list do not say it
        items = [own | each for each in found.get("items") or []]
        return Listing(items, str((found.get("metadata") or {}).get("resourceVersion", "")))

    def apply(self, resource: Resource, manifest: Manifest, *, dry_run: bool = False, force: bool = False) -> Manifest:
        """Server-side apply with strict field validation.

        Args:
            resource: how its kind is asked for.
            manifest: the fields that are to be as they are here.
            dry_run: only say what would come of it.
            force: take fields over that others have set to something else.

        Returns:
            The object as it is then.
        """
        own = key(manifest)
        query = [("fieldManager", MANAGER), ("fieldValidation", "Strict"), ("force", str(force).lower())]
        if dry_run:
            query.append(("dryRun", "All"))
        path = resource.path(own.namespace, own.name)
        # JSON is YAML: and sent as text, nothing looks into it on the way.
        return self.session.json("PATCH", path, query, json.dumps(manifest), "application/apply-patch+yaml")

    def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete one object and what belongs to it; one that is gone already is fine."""
        try:
            self.session.json("DELETE", resource.path(namespace, name), body={"propagationPolicy": "Background"})
        except ApiError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    def may(self, verb: str, resource: Resource, namespace: str, subresource: str = "") -> bool:
        """Whether who asks has a right (SelfSubjectAccessReview)."""
        attributes = {
            "verb": verb,
            "group": resource.group,
            "resource": resource.plural,
            "subresource": subresource,
            "namespace": namespace if resource.namespaced else "",
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {name: value for name, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.session.json("POST", path, body=review)["status"]["allowed"])

    def wait_for_change(self, resource: Resource, namespace: str, since: Listing, timeout_s: int) -> bool:
        """Wait until an object of a kind changes.

        A watch is only what wakes the caller, who then lists: so that nothing is missed when it breaks off.

        Returns:
            False when the watch broke off, and how things are has to be asked for after a while.
        """
        query = [
            ("watch", "true"),
            ("resourceVersion", since.resource_version),
            ("timeoutSeconds", str(timeout_s)),
        ]
        try:
            for _ in self.session.lines(resource.path(namespace), query, silence_s=timeout_s + SLACK_S, tries=1):
                break
        except (ConnectionError, ClusterError):
            return False  # and if the server is away, who asks how things are is told
        return True

    def log(self, namespace: str, pod: str, container: str, *, tail: int, previous: bool = False) -> list[str]:
        """The last lines that a container wrote, or the one before it that ended."""
        query = [("container", container), ("tailLines", str(tail)), ("previous", str(previous).lower())]
        return self.session.text(f"{PODS.path(namespace, pod)}/log", query).splitlines()

    def follow(self, namespace: str, pod: str, container: str, *, tail: int) -> Iterator[str]:
        """The last lines that a container wrote, and then each that it writes, until it ends."""
        query = [("container", container), ("tailLines", str(tail)), ("follow", "true")]
        return self.session.lines(f"{PODS.path(namespace, pod)}/log", query, silence_s=None)

    def page(self, namespace: str, pod: str, port: int, path: str) -> str:
        """What a pod's HTTP server answers, asked through the API server, once: it may not be reachable from there."""
        return self.session.text(f"{PODS.path(namespace, f'{pod}:{port}')}/proxy{path}", tries=1)
