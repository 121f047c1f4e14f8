from __future__ import annotations

import pytest
from fake_kubernetes import use_kubeconfig

from branchy.cluster import session as session_module
from branchy.cluster.api import NAMESPACES, PODS, STATEFUL_SETS, Api, Listing
from branchy.cluster.session import TRIES, ApiError, Session, api_error, connect, retry_wait_s
from branchy.errors import ClusterError, UsageError


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def session(kubernetes, slept) -> Session:
    return connect(None, slept.append)


def test_what_may_pass_is_tried_again_and_the_server_says_when(kubernetes, session, slept):
    kubernetes.fail("GET", "/version", 500, "etcd is away")
    kubernetes.fail("GET", "/version", 429, "too many", headers={"Retry-After": "7"})
    assert Api(session).version() == "v1.36.3"
    assert slept == [0.5, 7.0]


def test_it_is_not_tried_for_ever(kubernetes, session, slept):
    kubernetes.fail("GET", "/version", 503, "not now", times=99)
    with pytest.raises(ApiError, match="the API server answered 503: not now"):
        session.json("GET", "/version")
    assert len(slept) == TRIES - 1 == kubernetes.asked.count("GET /version") - 1


@pytest.fixture
def short(monkeypatch) -> None:
    """Answers are waited for a moment only."""
    monkeypatch.setattr(session_module, "ANSWER_S", 0.1)


@pytest.mark.parametrize("in_body", [False, True])
def test_a_request_that_is_never_answered_is_tried_again_and_then_told(kubernetes, session, slept, short, in_body):
    api = Api(session)
    api.version()
    kubernetes.hang("GET", "/namespaces/branchy", in_body=in_body)
    with pytest.raises(ClusterError) as caught:
        api.get(NAMESPACES, "", "branchy")
    assert kubernetes.asked.count("GET /api/v1/namespaces/branchy") == TRIES
    assert slept == [0.5, 1, 2, 4]
    assert str(caught.value).replace(" (read timeout=0.1)", "") == (
        f"the cluster of context here at {session.host} did not answer GET /api/v1/namespaces/branchy (tries: 5): "
        "Read timed out.; try again once kubectl --context here get --raw /readyz says ok"
    )


def test_one_that_answers_at_the_last_try_has_answered(kubernetes, session, short):
    api = Api(session)
    api.version()
    kubernetes.hang("GET", "/namespaces/branchy", times=TRIES - 2)
    kubernetes.hang("GET", "/namespaces/branchy", times=1, in_body=True)
    assert api.get(NAMESPACES, "", "branchy") is None


def test_a_server_that_never_answered_at_all_is_given_up_at_once(kubernetes, session, slept, short):
    kubernetes.hang("GET", "/version")
    with pytest.raises(ClusterError, match=r"context here at .* cannot be reached: Read timed out.*right one"):
        Api(session).version()
    assert not slept


def test_a_pods_page_that_hangs_is_asked_for_once(kubernetes, session, slept, short):
    api = Api(session)
    api.version()
    kubernetes.hang("GET", "/proxy/metrics")
    with pytest.raises(ClusterError, match=r"did not answer GET .*/pods/edge-tier-0:9400/proxy/metrics \(tries: 1\)"):
        api.page("branchy", "edge-tier-0", 9400, "/metrics")
    assert not slept


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "no"), (404, "no"), (409, "no"), (422, "no"), (500, "failed to create typed patch object: .spec.x: no")],
)
def test_what_stays_wrong_is_not_tried_again(status, message):
    assert retry_wait_s(0, ApiError(status, message)) is None


def test_no_wait_is_longer_than_half_a_minute():
    assert retry_wait_s(0, ApiError(429, "", retry_after_s=3600)) == 30


def test_an_answer_that_is_no_status_is_told_as_it_is():
    found = api_error(502, b"<html>Bad\n Gateway</html>", {"Retry-After": "Wed, 21 Oct"})
    assert (str(found), found.retry_after_s) == ("the API server answered 502: <html>Bad Gateway</html>", None)
    for body in (b"[]", b'"x"', b'{"message": 1, "details": null}', b""):
        assert api_error(500, body, {}).status == 500


def test_a_cluster_that_is_not_there_is_told_at_once_with_its_context(kubernetes, slept):
    with pytest.raises(
        ClusterError, match=r"context nowhere at http://127.0.0.1:1 cannot be reached: .*refused"
    ) as caught:
        connect("nowhere", slept.append).json("GET", "/version")
    assert "0x" not in str(caught.value)
    assert not slept


def test_a_context_that_the_kubeconfig_does_not_have_is_named_with_those_it_has(kubernetes):
    with pytest.raises(UsageError, match="--context prod: expected one of here, nowhere"):
        connect("prod")


def test_without_a_kubeconfig_it_is_said_where_one_is_looked_for(tmp_path, monkeypatch):
    use_kubeconfig(monkeypatch, tmp_path / "none")
    with pytest.raises(UsageError, match="expected a kubeconfig"):
        connect(None)


@pytest.mark.parametrize("text", ["", "[]", "{", "contexts: 5", "current-context: x\ncontexts: []"])
def test_a_kubeconfig_that_is_none_is_one_line(tmp_path, monkeypatch, text):
    (tmp_path / "config").write_text(text)
    use_kubeconfig(monkeypatch, tmp_path / "config")
    with pytest.raises((UsageError, ClusterError)) as caught:
        connect(None)
    assert "\n" not in str(caught.value)


def test_who_is_not_known_is_told_to_log_in(kubernetes, session):
    kubernetes.fail("GET", "/version", 401, "Unauthorized")
    with pytest.raises(ClusterError, match=r"does not know you \(401 Unauthorized\): log in again"):
        session.json("GET", "/version")


def test_what_answers_and_is_no_api_server_is_named(kubernetes, session):
    kubernetes.pages["x"] = "hello"
    with pytest.raises(ClusterError, match="expected an API server's answer"):
        session.json("GET", "/api/v1/namespaces/n/pods/x:1/proxy/metrics")


def test_the_credentials_are_in_no_message_and_no_repr(kubernetes, session):
    kubernetes.fail("GET", "/version", 403, "forbidden")
    with pytest.raises(ApiError) as caught:
        session.json("GET", "/version")
    assert "hidden-token" not in f"{caught.value!r} {session!r} {vars(session)!r}"


def test_a_watch_that_breaks_off_hangs_or_is_refused_is_no_error_and_says_so(kubernetes, session, slept, monkeypatch):
    api = Api(session)
    assert api.wait_for_change(PODS, "branchy", Listing([], "7"), 1)
    kubernetes.drop_watches = True
    assert not api.wait_for_change(PODS, "branchy", Listing([], "7"), 1)
    kubernetes.fail("GET", "watch=true", 410, "too old resource version")
    assert not api.wait_for_change(PODS, "branchy", Listing([], "7"), 1)
    monkeypatch.setattr("branchy.cluster.api.SLACK_S", 0.1)
    kubernetes.hang("GET", "watch=true", times=1)
    assert not api.wait_for_change(PODS, "branchy", Listing([], "7"), 0)
    assert not slept


def test_kinds_are_found_by_asking_and_subresources_are_none(kubernetes, session):
    api = Api(session)
    assert api.resource("apps/v1", "StatefulSet") == STATEFUL_SETS
    assert api.resource("v1", "Pod") == PODS
    assert api.resource("keda.sh/v1alpha1", "ScaledObject") is None
    assert api.resource("v1", "X") is None
    assert api.resource("apps/v1", "StatefulSet") is not None
    assert kubernetes.asked.count("GET /apis/apps/v1") == 1


def test_a_path_names_group_version_namespace_and_object():
    assert PODS.path("a", "b:9") == "/api/v1/namespaces/a/pods/b:9"
    assert STATEFUL_SETS.path("a") == "/apis/apps/v1/namespaces/a/statefulsets"
    assert PODS.path("a", "../../secrets") == "/api/v1/namespaces/a/pods/..%2F..%2Fsecrets"
