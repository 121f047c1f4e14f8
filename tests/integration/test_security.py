"""A cascade on a real Kafka with TLS, logins and rights: who may do what, and what the others are told."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from client import WAIT_S
from commands import Command
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from secured import passwords, run, settings_of, write_settings
from serving_stand import one_sample

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.certificates import authority_file, make_certificates
from branchy.config import DeviceSettings
from branchy.core import access, topics, wire
from branchy.core.messages import Request
from branchy.errors import RefusedError
from branchy.runner import dead_letters
from branchy.runner.device import Device
from branchy.store.bundle import Bundle
from branchy.transport.base import Message
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.addresses import KafkaAddress
from branchy.transport.kafka.topics import PARTITIONS, create_missing, default_copies

pytestmark = pytest.mark.slow

CASCADE = "secured"
CAMERAS_OWN = topics.answers(CASCADE, "device", "camera")
EDGE, HALL = topics.requests(CASCADE, "edge"), topics.requests(CASCADE, "hall")
runs = itertools.count()


@pytest.fixture(scope="module")
def granted(secured_kafka: KafkaCluster, toy_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> KafkaCluster:
    """The operator has made the topics, and given everybody the rights that they need."""
    operator = secured_kafka.users.settings_file("operator")
    where = ("--bundle", toy_bundle.path, "--cascade", CASCADE, "--config", operator)
    flags = ("--grant", "--device", "camera")
    code, said = run(tmp_path_factory.mktemp("operator"), "topics", "create", *where, *flags)
    assert code == 0, said
    assert f"created  {CAMERAS_OWN}\n" in said
    assert f"granted  edge: READ, DESCRIBE_CONFIGS of topic {EDGE}\n" in said
    return secured_kafka


@pytest.fixture(scope="module")
def tiers(
    granted: KafkaCluster, toy_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Command]]:
    """Both tiers, each as its own user."""
    folder = tmp_path_factory.mktemp("tiers")
    with ExitStack() as stack:
        found = {}
        for user, stages in {"hall": "hall,cloud", "edge": "edge"}.items():
            where = ("--bundle", toy_bundle.path, "--cascade", CASCADE, "--config", granted.users.settings_file(user))
            command = Command(folder, "serve", "--tier", stages, *where, "--ready-file", folder / user)
            found[user] = stack.enter_context(command)
        for user, command in found.items():
            command.wait_for(folder / user)
        yield found


def open_device(cluster: KafkaCluster, bundle: Bundle, user: str, **settings: Any) -> Device:
    back = settings_of(cluster.users, user)
    given = DeviceSettings(bundle=bundle.path, back=back, cascade=CASCADE, deadline_ms=20_000, **settings)
    return Device(bundle, given)


@pytest.mark.parametrize(("user", "settings"), [("device", {}), ("camera", {"reply_topic": CAMERAS_OWN})])
def test_a_device_and_two_tiers_work_together_as_users_of_their_own(granted, toy_bundle, tiers, user, settings):
    with open_device(granted, toy_bundle, user, **settings) as device:
        answers = [device.ask(one_sample(sure=sure)) for sure in (True, False)]
    assert [(answer.tier, answer.reason) for answer in answers] == [("edge", "confident"), ("hall", "final")]
    for command in tiers.values():
        assert "uthorization" not in command.log()  # they may do all that they try


def test_no_secret_is_in_a_log_or_on_a_command_line(granted, tiers):
    secrets = passwords(granted)
    texts = [command.log() for command in tiers.values()]
    texts += [file.read_text(errors="replace") for file in granted.data.glob("node-1/*.*") if file.is_file()]
    texts += [file.read_text(errors="replace") for file in granted.users.folder.glob("*.toml")]
    texts += [file.read_bytes().decode(errors="replace") for file in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [text for text in texts for secret in secrets if secret in text]


def plain_config(cluster: KafkaCluster, user: str) -> dict[str, Any]:
    return {"bootstrap.servers": cluster.brokers, "log_level": 0, **cluster.users.client_config(user)}


def write(cluster: KafkaCluster, user: str, topic: str) -> int | None:
    """What the brokers say of a message, by a client that is not branchy; None when they took it."""
    fate: list[KafkaError | None] = []
    producer = Producer({**plain_config(cluster, user), "topic.metadata.propagation.max.ms": 1_000})
    producer.produce(topic, b"not for anybody", partition=0, on_delivery=lambda error, _: fate.append(error))
    assert producer.flush(WAIT_S) == 0
    return fate[0] and fate[0].code()


def read(cluster: KafkaCluster, user: str, topic: str) -> int | None:
    """What the brokers say of a fetch; None when it reached the partition's end."""
    config = {**plain_config(cluster, user), "group.id": "none", "enable.partition.eof": True}
    with closing(Consumer(config)) as consumer:
        hidden = consumer.list_topics(topic, WAIT_S).topics[topic].error
        if hidden is not None:
            return hidden.code()
        consumer.assign([TopicPartition(topic, PARTITIONS - 1, 0)])
        error = None
        # It looks for a group's coordinator, which means nothing to who reads by assign.
        while error is None or error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
            message = consumer.poll(WAIT_S)
            assert message is not None
            error = message.error()
    return None if error.code() == KafkaError._PARTITION_EOF else error.code()


REFUSED = KafkaError.TOPIC_AUTHORIZATION_FAILED


@pytest.mark.parametrize(
    ("user", "may_write", "may_not"),
    [
        ("device", topics.requests(CASCADE, "full"), [HALL, topics.dead_letters(CASCADE, "edge"), CAMERAS_OWN]),
        ("edge", CAMERAS_OWN, [EDGE, topics.dead_letters(CASCADE, "hall"), topics.answers(CASCADE, "edge")]),
        ("hall", topics.answers(CASCADE, "edge"), [HALL, topics.answers(CASCADE, "device"), CAMERAS_OWN]),
    ],
)
def test_a_user_may_write_where_its_part_writes_and_nowhere_else(granted, user, may_write, may_not):
    assert write(granted, user, may_write) is None
    assert [write(granted, user, topic) for topic in may_not] == [REFUSED] * len(may_not)


@pytest.mark.parametrize(
    ("user", "may_read", "may_not"),
    [
        ("device", topics.answers(CASCADE, "device"), [EDGE, CAMERAS_OWN]),
        ("camera", CAMERAS_OWN, [topics.answers(CASCADE, "device")]),
        ("edge", topics.answers(CASCADE, "edge"), [HALL, topics.answers(CASCADE, "device")]),
        ("operator", topics.dead_letters(CASCADE, "hall"), ["__consumer_offsets"]),
    ],
)
def test_a_user_may_read_what_its_part_reads_and_nothing_else(granted, user, may_read, may_not):
    assert read(granted, user, may_read) is None
    assert [read(granted, user, topic) for topic in may_not] == [REFUSED] * len(may_not)


def test_nobody_but_the_brokers_may_open_a_transaction(granted):
    """One that stays open would hold up whoever reads only what is committed."""
    for user in ("device", "edge", "operator"):
        producer = Producer({**plain_config(granted, user), "transactional.id": "branchy.x"})
        with pytest.raises(KafkaException) as error:
            producer.init_transactions(WAIT_S)
        assert error.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


def attempt(cluster: KafkaCluster, user: str, call: Any) -> str:
    """What branchy says of a call that the brokers refuse this user."""
    with closing(KafkaLink(settings_of(cluster.users, user), "back")) as link, pytest.raises(RefusedError) as error:
        call(link)
    return str(error.value)


def test_reading_what_is_not_ones_own_is_refused_before_anybody_waits_for_a_message(granted):
    def ignore(*_: object) -> None:
        return None

    tried = {
        f"edge to read {HALL}": lambda link: link.requests(HALL, topics.group(CASCADE, "hall"), ignore),
        f"edge to read as group {topics.group(CASCADE, 'hall')}": lambda link: link.requests(
            EDGE, topics.group(CASCADE, "hall"), ignore
        ),
        f"device to read {EDGE}": lambda link: link.browse(EDGE, WAIT_S),
        f"edge to read {CAMERAS_OWN}": lambda link: link.replies(CAMERAS_OWN, "0", ignore, WAIT_S),
    }
    for what, call in tried.items():
        assert attempt(granted, what.split()[0], call) == f"back: the brokers do not allow user {what}"


def test_a_tier_that_could_not_put_a_message_aside_takes_none(granted):
    dead = topics.dead_letters(CASCADE, "edge")
    with closing(KafkaLink(settings_of(granted.users, "edge"), "back")) as link:
        link.check_may_write(dead, WAIT_S)
    said = attempt(granted, "hall", lambda link: link.check_may_write(dead, WAIT_S))
    assert said == f"back: the brokers do not allow user hall to write to {dead}"


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority that nobody here trusts, and certificates of it."""
    folder = tmp_path_factory.mktemp("foreign")
    make_certificates(folder, ["edge"], "IP:127.0.0.1")
    return folder


NONE = {"security": "PLAINTEXT", "ca_file": None, "sasl_mechanism": None, "username": None, "password_file": None}
WRONG_PASSWORD = "the brokers at {brokers} refuse this client: SASL authentication error: "
REFUSALS = {
    "no credentials": (NONE, "the broker at {brokers} takes SASL_SSL or SSL only, and the setting security is PLAIN"),
    "no login": (
        {"security": "SSL", "sasl_mechanism": None, "username": None, "password_file": None},
        "the broker at {brokers} takes SASL_SSL only, and the setting security is SSL",
    ),
    "no TLS": (
        {"security": "SASL_PLAINTEXT", "ca_file": None},
        "takes SASL_SSL or SSL only, and the setting security is SASL_PLAINTEXT",
    ),
    "a wrong password": ({"password_file": None, "password": "hunter2"}, WRONG_PASSWORD),
    "an unknown user": ({"username": "mallory"}, WRONG_PASSWORD),
    "another mechanism": (
        {"sasl_mechanism": "PLAIN"},
        "refuse this client: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_who_cannot_log_in_is_told_so_at_once_and_how(granted, case):
    changes, expected = REFUSALS[case]
    settings = settings_of(granted.users, "edge", **changes)
    # Not an absence, at which a tier would try for ever; and long before the time is up.
    with closing(KafkaLink(settings, "back")) as link, pytest.raises(RefusedError) as error:
        link.prepare([EDGE], 600.0)
    assert str(error.value).startswith("back: ")
    assert expected.format(brokers=granted.brokers) in str(error.value)
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


def test_brokers_of_a_foreign_authority_are_told_nothing(granted, foreign):
    settings, expected = (
        settings_of(granted.users, "edge", ca_file=authority_file(foreign)),
        "; check ca_file, the auth",
    )
    with closing(KafkaLink(settings, "back")) as link, pytest.raises(RefusedError, match=expected):
        link.prepare([EDGE], 600.0)


@pytest.mark.parametrize(
    ("user", "changes", "arguments", "expected"),
    [
        ("edge", NONE, ("serve", "--tier", "edge"), "takes SASL_SSL or SSL only"),
        ("edge", {"username": "mallory"}, ("serve", "--tier", "edge"), "SASL authentication error"),
        ("edge", {}, ("serve", "--tier", "hall,cloud"), f"topic {HALL[:-9]}.dead is not there, or may not be seen by"),
        ("device", {"username": "mallory"}, ("dlq", "show"), "SASL authentication error"),
        ("device", {}, ("dlq", "show"), f"do not allow user device to read {EDGE[:-9]}.dead"),
        ("device", {}, ("topics", "create"), f"topic {EDGE[:-9]}.dead is not there, or may not be seen by this user"),
    ],
)
def test_a_command_that_is_refused_ends_with_one_line(
    granted, toy_bundle, tmp_path, user, changes, arguments, expected
):
    config = write_settings(tmp_path / "settings.toml", settings_of(granted.users, user, **changes))
    code, said = run(tmp_path, *arguments, "--bundle", toy_bundle.path, "--cascade", CASCADE, "--config", config)
    lines = [line for line in said.splitlines() if line.startswith("branchy: ")]
    assert (code, len(lines)) == (1, 1), said
    assert expected in lines[0]
    assert "Traceback" not in said


def test_a_tier_that_may_not_write_to_its_front_says_so(granted, caplog):
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with (
        closing(KafkaLink(settings_of(granted.users, "hall"), "front")) as link,
        closing(link.sender(events.put, message_timeout_s=WAIT_S, queue_limit=10)) as sender,
    ):
        for _ in range(2):
            assert sender.send(KafkaAddress(HALL), Message((), b""), "tag")
            assert events.get(timeout=WAIT_S).error.permanent
    said = [record.message for record in caplog.records if "do not allow" in record.message]
    assert said == [f"front: the brokers do not allow this user to write to {HALL}"]


def test_a_device_may_not_take_anothers_answers(granted, toy_bundle):
    with pytest.raises(RefusedError, match=f"topic {CAMERAS_OWN} is not there, or may not be seen by this user"):
        open_device(granted, toy_bundle, "device", reply_topic=CAMERAS_OWN)


def test_a_topic_that_was_only_just_not_seen_is_no_refusal_to_who_may_not_make_it(granted):
    admin = AdminClient(plain_config(granted, "edge"))
    assert create_missing(admin, {EDGE: 0}, (), time.monotonic() + WAIT_S)[0] == []


def test_the_operator_learns_how_many_copies_the_brokers_keep_and_no_tier_does(granted):
    copies = {
        user: default_copies(AdminClient(plain_config(granted, user)), [1], time.monotonic() + WAIT_S)
        for user in ("operator", "edge")
    }
    assert copies == {"operator": 1, "edge": None}


def test_only_the_operator_gives_rights(granted, toy_bundle):
    rules = access.rules(toy_bundle.spec, "mallorys")
    assert attempt(granted, "edge", lambda link: link.allow(rules, WAIT_S)).endswith("Cluster authorization failed")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (KafkaAddress("elsewhere", 0), f"reply topic 'elsewhere' does not start with '{topics.PREFIX}'"),
        (KafkaAddress(topics.answers(CASCADE, "device"), 99), f"has {PARTITIONS} partitions, none is 99"),
        (KafkaAddress(f"{topics.PREFIX}nowhere.answers", 0), "is not there"),
        (KafkaAddress(HALL, 0), "is not for answers"),
        (KafkaAddress(topics.dead_letters(CASCADE, "edge"), 0), "is not for answers"),
    ],
)
def test_a_reply_address_that_cannot_be_is_refused_and_settled(granted, toy_bundle, tiers, address, expected):
    name = f"astray-{next(runs)}"
    request = Request(name, toy_bundle.digest, "edge", 20_000.0, {"sample": one_sample(sure=True)})
    headers, body = wire.encode_request(request, wire.Stamp("event", "/test", time.time()))
    with (
        closing(KafkaLink(settings_of(granted.users, "device"), "back")) as link,
        closing(link.sender(lambda *_: None, message_timeout_s=WAIT_S, queue_limit=10)) as sender,
    ):
        assert sender.send(KafkaAddress(EDGE), Message(headers, body), "tag", reply_to=address)
        assert sender.flush(WAIT_S) == 0
    operator = DeviceSettings(
        bundle=toy_bundle.path, cascade=CASCADE, back=settings_of(granted.users, "operator"), tier="edge"
    )
    for _ in range(100):
        letters = [letter for letter in dead_letters.show(operator, limit=100).newest if letter.request == name]
        if letters:
            break
    assert [(letter.code, expected in letter.reason) for letter in letters] == [("transport", True)]
    wait_until_settled(granted)


def wait_until_settled(cluster: KafkaCluster) -> None:
    """Until the edge has committed all that there is: nothing is in the way of what comes next."""
    with closing(Consumer({**plain_config(cluster, "edge"), "group.id": topics.group(CASCADE, "edge")})) as consumer:
        partitions = [TopicPartition(EDGE, number) for number in range(PARTITIONS)]
        ends = [consumer.get_watermark_offsets(partition, WAIT_S)[1] for partition in partitions]
        until = time.monotonic() + WAIT_S
        while [max(0, found.offset) for found in consumer.committed(partitions, WAIT_S)] != ends:
            assert time.monotonic() < until
