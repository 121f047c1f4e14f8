"""The health port: `/healthz`, `/readyz` and `/metrics` over HTTP, in threads that nobody can hold for long."""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client.exposition import choose_encoder

from branchy.config import HealthSettings
from branchy.errors import BranchyError, UsageError
from branchy.runner.health import Health, Verdict
from branchy.runner.metrics import registry_of

log = logging.getLogger(__name__)

CONNECTION_S = 5.0
"""So long a client may take over its request and the answer, however slowly it reads and writes."""
LOOK_S = 0.2
"""How often it looks for clients that take too long, and whether to end."""
MOST_CONNECTIONS = 8
"""What comes beyond is closed at once: an orchestrator and a Prometheus ask one at a time."""
ASK_S = 5.0
"""How long `branchy health` waits for an answer."""

Reply = tuple[int, str, bytes]
PATHS = {"live": "/healthz", "ready": "/readyz"}


class HealthPort:
    """Serves one tier's health until it is closed.

    Args:
        settings: where to listen; its port may be 0 here, for any that is free.
        health: whose.

    Attributes:
        port: where it listens.

    Raises:
        BranchyError: nobody can listen there; the message says why.
    """

    def __init__(self, settings: HealthSettings, health: Health) -> None:
        self._health = health
        self._registry = registry_of(health)
        routes: dict[str, Callable[[str], Reply]] = {
            PATHS["live"]: lambda _: _reply(health.alive()),
            PATHS["ready"]: lambda _: _reply(health.ready()),
            "/metrics": self._metrics,
        }
        try:
            self._server = _Server(settings.host, settings.port, routes)
        except OSError as error:
            raise BranchyError(
                f"health port: expected to listen on {settings.host} port {settings.port}, got: {error.strerror}; "
                "give another --health-port or --health-host, or end what listens there"
            ) from None
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(LOOK_S,), name="health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Listen no more; may be called twice."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _metrics(self, accept: str) -> Reply:
        encode, content_type = choose_encoder(accept)
        return 200, content_type, encode(self._registry)


def ask(settings: HealthSettings, what: str = "live") -> Verdict:
    """Ask the health port that these settings describe, on this machine.

    Args:
        settings: the tier's own.
        what: `live` or `ready`.

    Raises:
        UsageError: the settings name no port.
    """
    if settings.port == 0:
        raise UsageError("no health port: give --health-port, or set BRANCHY_HEALTH_PORT")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)
    connection = http.client.HTTPConnection(host, settings.port, timeout=ASK_S)
    try:
        connection.request("GET", PATHS[what])
        response = connection.getresponse()
        return Verdict(response.status == http.HTTPStatus.OK, response.read(1000).decode(errors="replace").strip())
    except (OSError, http.client.HTTPException) as error:
        return Verdict(False, f"no answer from {host} port {settings.port}: {error or type(error).__name__}")
    finally:
        connection.close()


def _reply(verdict: Verdict) -> Reply:
    return 200 if verdict.ok else 503, "text/plain; charset=utf-8", f"{verdict.line}\n".encode()


class _Server(socketserver.ThreadingTCPServer):
    """A thread a connection, a bounded number of them, each for a bounded time."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(self, host: str, port: int, routes: dict[str, Callable[[str], Reply]]) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        self.address_family = found[0]
        self.routes = routes
        self._lock = threading.Lock()
        self._since: dict[Any, float] = {}
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # `::` takes IPv4 too
        super().server_bind()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        with self._lock:
            if len(self._since) >= MOST_CONNECTIONS:
                return False
            self._since[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._since.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Called every `LOOK_S`: ends what takes too long, which its thread then notices."""
        latest = time.monotonic() - CONNECTION_S
        with self._lock:
            for request in [r for r, since in self._since.items() if since < latest]:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exception()
        if isinstance(error, OSError):
            log.debug("health port: %s went away: %s", client_address, error)
        else:
            log.error("health port: a request failed", exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version, sys_version = "branchy", ""
    timeout = CONNECTION_S

    def do_GET(self) -> None:
        route = self.server.routes.get(self.path.partition("?")[0])
        if route is None:
            status, kind, body = 404, "text/plain", f"expected one of {', '.join(self.server.routes)}\n".encode()
        else:
            status, kind, body = route(self.headers.get("Accept", ""))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("health port: %s", format % args)
