"""Requests to an API server: which one, with whose rights, what is tried again, and what went wrong in one line."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from branchy.errors import ClusterError, MissingExtraError, UsageError

try:
    import urllib3
    import yaml
    from kubernetes import config
    from kubernetes.client import ApiClient, Configuration
    from kubernetes.client.exceptions import ApiException
except ImportError:
    raise MissingExtraError("branchy deploy", "k8s") from None

Query = Sequence[tuple[str, str]]

CONNECT_S, ANSWER_S = 5.0, 30.0
TRIES = 5
"""Of one request, where trying again can help."""
LONGEST_WAIT_S = 30.0
BUSY = frozenset({429, 500, 502, 503, 504})
"""Statuses that may pass. Everything asked here may be asked twice: it reads, applies, deletes, or only looks."""
FOR_GOOD = "typed patch object"
"""In a 500 of API servers to a server-side apply with an unknown field."""


class Cause(NamedTuple):
    """One of the reasons that an API server gives: the field that it is about, and what is wrong with it."""

    kind: str
    field: str
    message: str


class ApiError(ClusterError):
    """An answer of the API server that is no success.

    Attributes:
        status: of HTTP.
        message: the server's own.
        causes: the single reasons, where it gives them.
        retry_after_s: how long it asks to wait, where it does.
    """

    def __init__(self, status: int, message: str, causes: Sequence[Cause] = (), retry_after_s: float | None = None):
        super().__init__(f"the API server answered {status}: {message if len(message) <= 500 else message[:499] + '…'}")
        self.status = status
        self.message = message
        self.causes = tuple(causes)
        self.retry_after_s = retry_after_s


def api_error(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """What an answer that is no success says (a `Status` object, or anything where a proxy answered)."""
    try:
        found = json.loads(body)
        message = str(found["message"])
        causes = (found.get("details") or {}).get("causes") or []
    except (ValueError, KeyError, TypeError, AttributeError):
        message, causes = body[:200].decode(errors="replace"), []
    wait = headers.get("Retry-After", "")
    return ApiError(
        status,
        " ".join(message.split()),
        [Cause(each.get("reason", ""), each.get("field", ""), each.get("message", "")) for each in causes],
        float(wait) if wait.isdigit() else None,
    )


def retry_wait_s(attempt: int, error: ApiError, tries: int = TRIES) -> float | None:
    """How long to wait before a request is tried again; None where that is of no use, or enough was tried.

    Args:
        attempt: how often it was tried, less one.
        error: what came of it.
        tries: how many are enough.
    """
    if error.status not in BUSY or attempt + 1 >= tries or FOR_GOOD in error.message:
        return None
    return min(LONGEST_WAIT_S, error.retry_after_s if error.retry_after_s is not None else 0.5 * 2**attempt)


class Session:
    """Speaks with the API server of one context.

    Args:
        client: with the context's address and credentials.
        context: its name, for messages.
        sleep: how time passes between two tries, in seconds.
    """

    def __init__(self, client: Any, context: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.context = context
        self.host = str(client.configuration.host)
        self._client = client
        self._sleep = sleep
        self._reached = False

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def json(
        self, method: str, path: str, query: Query = (), body: Any = None, content_type: str = "application/json"
    ) -> dict[str, Any]:
        """One request, and the object that is the answer.

        Raises:
            ApiError: the server answered something else than success.
            ClusterError: it cannot be reached, or what answers is no API server.
        """
        data = self._send(method, path, ANSWER_S, query, body, content_type).read()
        try:
            found = json.loads(data)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ClusterError(f"{self._who()}: expected an API server's answer to {path}, got {data[:80]!r}")
        return found

    def text(self, path: str, query: Query = (), tries: int = TRIES) -> str:
        """One GET whose answer is text, asked for so often at most. Raises as `json` does."""
        return bytes(self._send("GET", path, ANSWER_S, query, tries=tries).read()).decode(errors="replace")

    def lines(self, path: str, query: Query, silence_s: float | None, tries: int = TRIES) -> Iterator[str]:
        """A GET whose answer comes line by line, until the server ends it.

        Args:
            path: asked for.
            query: with it.
            silence_s: how long nothing may come; None for any time.
            tries: how often at most it is asked for, until it begins.

        Raises:
            ConnectionError: it broke off; and as `json` does.
        """
        response = self._send("GET", path, silence_s, query, endless=True, tries=tries).response
        rest = b""
        try:
            for chunk in response.stream(4096, decode_content=True):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise ConnectionError(_short(error)) from None
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        silence_s: float | None,
        query: Query = (),
        body: Any = None,
        content_type: str = "application/json",
        endless: bool = False,
        tries: int = TRIES,
    ) -> Any:
        headers = {"Accept": "application/json" if not endless else "*/*", "Content-Type": content_type}
        for attempt in itertools.count():
            try:
                request = self._client.param_serialize(
                    method, path, query_params=list(query), header_params=dict(headers), body=body,
                    auth_settings=["BearerToken"],
                )  # fmt: skip
                response = self._client.call_api(*request, _request_timeout=(CONNECT_S, silence_s))
                self._reached = True
                if response.status < 300:
                    if not endless:
                        response.read()  # here, so that an answer that breaks off is asked for again too
                    return response
                error = api_error(response.status, response.read(), response.headers)
                wait_s = retry_wait_s(attempt, error, tries)
                if wait_s is None:
                    raise self._explained(error)
            except (urllib3.exceptions.HTTPError, ApiException, OSError) as failed:
                if not self._reached:  # one that never answered is no cluster
                    raise ClusterError(f"{self._who()} cannot be reached: {_short(failed)}; {_HELP}") from None
                if attempt + 1 >= tries:
                    raise ClusterError(
                        f"{self._who()} did not answer {method} {path} (tries: {tries}): {_short(failed)}; "
                        f"try again once kubectl --context {self.context} get --raw /readyz says ok"
                    ) from None
                wait_s = 0.5 * 2**attempt
            self._sleep(wait_s)
        raise AssertionError("unreachable")

    def _explained(self, error: ApiError) -> ClusterError:
        if error.status == 401:
            return ClusterError(f"{self._who()} does not know you (401 {error.message}): log in again; {_HELP}")
        return error

    def _who(self) -> str:
        return f"the cluster of context {self.context} at {self.host}"


_HELP = "is it the right one? kubectl config get-contexts lists them, --context NAME takes another"


def connect(context: str | None, sleep: Callable[[float], None] = time.sleep) -> Session:
    """A session with the cluster of a context.

    Args:
        context: of the kubeconfig; None takes its current one.
        sleep: how time passes between two tries.

    Raises:
        UsageError: there is no kubeconfig, or it has no such context.
        ClusterError: the kubeconfig cannot be used.
    """
    try:
        contexts, active = config.list_kube_config_contexts()
        names = sorted(each["name"] for each in contexts)
        if context is not None and context not in names:
            raise UsageError(f"--context {context}: expected one of {', '.join(names)}, which the kubeconfig has")
        settings = Configuration()
        settings.retries = False  # what is tried again, and when, is decided here
        config.load_kube_config(context=context, client_configuration=settings)
    except config.ConfigException as error:
        raise UsageError(
            f"no cluster: {_short(error)}; expected a kubeconfig (KUBECONFIG, or ~/.kube/config) with a current context"
        ) from None
    except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError) as error:
        raise ClusterError(f"the kubeconfig cannot be used: {_short(error)}") from None
    return Session(ApiClient(settings), context or active["name"], sleep)


def _short(error: Exception) -> str:
    """An error of the libraries below in one line, without the addresses of Python's objects."""
    text = " ".join(str(error.reason if isinstance(error, ApiException) else error).split())
    return text.partition("object at 0x")[2].partition(": ")[2] or text.rpartition("): ")[2] or type(error).__name__
