"""Users of a secured Kafka: their files, and `branchy broker start` with --tls or --sasl alone (both: integration)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from secured import settings_of

from branchy.brokers import kafka_config
from branchy.brokers.certificates import make_certificates
from branchy.brokers.kafka_users import OPERATOR, USERS, KafkaUsers, server_security
from branchy.brokers.running import stop_broker
from branchy.config import DeviceSettings, LinkSettings, load
from branchy.core import access, topics
from branchy.errors import ConfigError, RefusedError, UsageError
from branchy.transport.kafka import KafkaLink

pytestmark = pytest.mark.slow

SECURED = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")
WAIT_S = 30.0
Branchy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("security", SECURED)
def test_no_listener_of_a_secured_cluster_takes_less(tmp_path, security):
    plan = kafka_config.plan_cluster(tmp_path / "data", 3, None, security)
    for node in plan.nodes:
        found = kafka_config.server_properties(plan, node)
        names = {listener.partition("://")[0] for listener in found["listeners"].split(",")}
        protocols = dict(item.split(":") for item in found["listener.security.protocol.map"].split(","))
        assert {protocols[name] for name in names} == {security}
        assert found["inter.broker.listener.name"] in names
        assert found["super.users"] == "User:broker"
        assert "allow.everyone.if.no.acl.found" not in found


def test_without_security_nothing_is_asked_and_nothing_is_made(tmp_path):
    assert server_security("PLAINTEXT") == {}
    users = KafkaUsers(tmp_path, "PLAINTEXT", ())
    users.make("IP:127.0.0.1")
    users.write_settings("127.0.0.1:1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("openssl")
@pytest.mark.parametrize("security", SECURED)
def test_what_is_made_is_for_its_owner_and_stays_the_same(tmp_path, security):
    def contents() -> dict[str, bytes]:
        return {file.name: file.read_bytes() for file in users.folder.iterdir()}

    users = KafkaUsers(tmp_path, security, ("edge",))
    for _ in range(2):
        users.make("IP:127.0.0.1")
        users.write_settings("127.0.0.1:1")
        before = contents()
        assert {file.stat().st_mode & 0o777 for file in users.folder.iterdir()} == {0o600}
        assert {folder.stat().st_mode & 0o777 for folder in (tmp_path, users.folder)} == {0o700}
    users.make("IP:127.0.0.1")
    assert contents() == before
    for name in ("edge", OPERATOR):
        assert settings_of(users, name).security == security


@pytest.mark.usefixtures("openssl")
def test_the_brokers_password_is_in_its_file_alone(tmp_path):
    """Not in a node's settings, which name the file, and no longer than needed in that of Kafka's tool."""
    users = KafkaUsers(tmp_path, "SASL_SSL", ())
    users.make("IP:127.0.0.1")
    secret = (users.folder / "broker.password").read_text()
    assert secret not in str(server_security("SASL_SSL"))
    with users.bootstrap_arguments() as (argument,):
        file = Path(argument.removeprefix("@"))
        assert secret in file.read_text()
        assert secret not in argument
        assert file.stat().st_mode & 0o077 == 0
    assert not file.exists()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            "SASL_SSL",
            "SSL",
            "holds a cluster whose clients use SASL_SSL, asked for was SSL: leave --tls and --sasl out",
        ),
        (None, "SASL_PLAINTEXT", "holds a cluster whose clients use PLAINTEXT, asked for was SASL_PLAINTEXT"),
    ],
)
def test_a_folders_security_stays(tmp_path, before, after, expected):
    kafka_config.write_plan(tmp_path, kafka_config.plan_cluster(tmp_path, None, None, before))
    assert kafka_config.plan_cluster(tmp_path, None, None).security == (before or "PLAINTEXT")
    with pytest.raises(UsageError, match=expected):
        kafka_config.plan_cluster(tmp_path, None, None, after)


def test_users_are_the_usual_ones_or_those_named_and_more_may_come(tmp_path):
    def plan(*users: str) -> tuple[str, ...]:
        found = kafka_config.plan_cluster(tmp_path, None, None, "SSL", users)
        kafka_config.write_plan(tmp_path, found)
        return found.users

    assert kafka_config.plan_cluster(tmp_path, None, None, "SSL").users == USERS
    assert plan("edge", OPERATOR, "camera") == ("edge", "camera")
    assert plan() == ("edge", "camera")
    assert plan("door", "edge") == ("edge", "camera", "door")


@pytest.mark.parametrize("name", ["broker", "ca", "", "../x", "a/b", "a b", 'a"b', "a,b", ".hidden", "x" * 64, "ü"])
def test_a_name_that_could_leave_the_folder_or_the_brokers_settings_is_refused(tmp_path, name):
    with pytest.raises(UsageError, match="expected up to 63 letters"):
        kafka_config.plan_cluster(tmp_path, None, None, "SSL", [name])


def test_users_without_a_login_are_wrong_use(tmp_path):
    with pytest.raises(UsageError, match="users are for a broker with --tls or --sasl"):
        kafka_config.plan_cluster(tmp_path, None, None, None, ["edge"])


@pytest.fixture
def branchy(tmp_path: Path) -> Iterator[Branchy]:
    """Calls `branchy broker ...` in a folder of its own."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "branchy", "broker", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)

    yield call
    stop_broker(tmp_path / ".branchy" / "broker.json")


def works(users: KafkaUsers, user: str, topic: str) -> bool:
    with closing(KafkaLink(settings_of(users, user), "back")) as link:
        return topic in link.prepare([topic], WAIT_S)


@pytest.mark.usefixtures("openssl")
@pytest.mark.parametrize(("flag", "security"), [("--tls", "SSL"), ("--sasl", "SASL_PLAINTEXT")])
def test_one_flag_alone_lets_known_users_in_and_says_how(
    kafka_home, branchy, tmp_path, toy_bundle, monkeypatch, flag, security
):
    started = branchy("start", flag, "--users", "device,edge")
    folder = tmp_path / ".branchy" / "kafka" / "users"
    how = f"clients use {security} and --config {folder}/USER.toml; users: device, edge, operator\n"
    assert started.returncode == 0, started.stderr
    assert started.stdout.endswith(how)
    assert branchy("status").stdout.endswith(how)

    users = KafkaUsers(folder.parent, security, ("device", "edge"))
    queue = topics.requests("c", "edge")
    with closing(KafkaLink(settings_of(users, OPERATOR), "back")) as link:
        link.create_topics({queue: 0}, partitions=1, replication=None, timeout_s=WAIT_S)
        link.allow(access.rules(toy_bundle.spec, "c"), WAIT_S)
    assert works(users, "edge", queue)
    refuses_others(users, queue, tmp_path)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ConfigError, match=f"takes {security}, and .*security is PLAINTEXT; give --config {folder}/USER"
    ):
        load(DeviceSettings, {"bundle": "b"})
    assert load(DeviceSettings, {"bundle": "b"}, folder / "edge.toml").back.security == security

    if flag == "--sasl":  # a new user, and all else as before
        assert branchy("stop").returncode == 0
        again = branchy("start", "--users", "camera")
        assert again.stdout.endswith("users: camera, device, edge, operator\n"), again.stderr
        assert works(users, "edge", queue)
        with pytest.raises(RefusedError, match="may not be seen by this user"):
            works(users, "camera", queue)


def refuses_others(users: KafkaUsers, queue: str, folder: Path) -> None:
    """Who has no certificate or a foreign one, or a wrong password; the secrets are nowhere to be seen."""
    if (users.folder / "ca.pem").exists():
        make_certificates(folder, ["mallory"], "IP:127.0.0.1")
        own, foreign = {"certificate_file": None, "key_file": None}, folder / "mallory.pem"
        changed = [own, {"certificate_file": foreign, "key_file": foreign}]
    else:
        changed = [{"password_file": users.folder / "device.password"}]
        secrets = [file.read_text() for file in users.folder.glob("*.password")]
        lines = " ".join(word for process in psutil.process_iter(["cmdline"]) for word in process.info["cmdline"] or ())
        assert not [secret for secret in secrets if secret in lines]
    link = json.loads((users.folder.parent.parent / "broker.json").read_text())
    for settings in (LinkSettings(brokers=link["brokers"]), *(settings_of(users, "edge", **each) for each in changed)):
        with closing(KafkaLink(settings, "back")) as refused, pytest.raises(RefusedError):
            refused.prepare([queue], 600.0)
