"""Toxiproxy (https://github.com/Shopify/toxiproxy): run, and told what to do to the links."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from branchy.brokers.kafka_config import HOST, free_ports
from branchy.errors import BranchyError
from branchy.runner.processes import Processes

READY_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 30.0
"""Taking a toxic away waits for what is just being held up by it."""
DIRECTIONS = ("upstream", "downstream")


class Toxiproxy:
    """A server with proxies; ended with `processes`.

    Args:
        program: see `go_programs.TOXIPROXY`.
        processes: owns the server.
    """

    def __init__(self, program: Path, processes: Processes) -> None:
        port = free_ports(1)[0]
        self._url = f"http://{HOST}:{port}"
        self._server = processes.start("toxiproxy", [str(program), "-host", HOST, "-port", str(port)])
        self._wait_ready()

    def create(self, name: str, listen: int, upstream: int) -> None:
        """A proxy from one port of this machine to another."""
        self._call("/proxies", {"name": name, "listen": f"{HOST}:{listen}", "upstream": f"{HOST}:{upstream}"})

    def spoil(self, name: str, kind: str, **attributes: int) -> None:
        """Add a toxic to both directions of a proxy, for connections that are there and those to come."""
        for stream in DIRECTIONS:
            toxic = {"name": f"{kind}-{stream}", "type": kind, "stream": stream, "attributes": attributes}
            self._call(f"/proxies/{name}/toxics", toxic)

    def enable(self, name: str, enabled: bool) -> None:
        """Take connections; or close those that are there, and take none."""
        self._call(f"/proxies/{name}", {"enabled": enabled})

    def heal(self) -> None:
        """Enable all proxies and take all toxics away."""
        self._call("/reset", {})

    def _wait_ready(self) -> None:
        until_s = time.monotonic() + READY_TIMEOUT_S
        while True:
            try:
                self._call("/version")
            except BranchyError:
                if not self._server.is_alive or time.monotonic() > until_s:
                    raise BranchyError(f"Toxiproxy did not start: {self._server.last_words()}") from None
                time.sleep(0.02)
            else:
                return

    def _call(self, path: str, body: Mapping[str, Any] | None = None) -> None:
        request = urllib.request.Request(self._url + path, None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=CALL_TIMEOUT_S) as reply:
                reply.read()
        except urllib.error.HTTPError as error:
            raise BranchyError(f"Toxiproxy refused {path}: {error.read().decode(errors='replace').strip()}") from None
        except OSError as error:
            raise BranchyError(f"Toxiproxy did not answer to {path}: {error}") from None
