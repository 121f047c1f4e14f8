"""LinkSettings -> librdkafka's keys; secrets stay secret; librdkafka logs through logging."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer

from branchy.config import LinkSettings
from branchy.errors import BrokerUnavailableError, ConfigError
from branchy.transport.kafka import KafkaLink
from branchy.transport.kafka.cluster import Cluster
from branchy.transport.kafka.config import (
    CLASSIC_GROUP,
    CONSUMER,
    CONSUMER_GROUP,
    EMBEDDED_CONSUMER,
    PRODUCER,
    broker_addresses,
    client_config,
)

SASL = {
    "brokers": "127.0.0.1:1",
    "security": "SASL_SSL",
    "sasl_mechanism": "SCRAM-SHA-512",
    "username": "edge",
}


def config(**settings) -> dict:
    return client_config(LinkSettings(**{"brokers": "127.0.0.1:1", **settings}), "back", lambda error: None)


def test_security_becomes_dotted_keys(tmp_path: Path):
    found = config(**SASL, password="s3cret", ca_file="/ca.pem", certificate_file="/c.pem", key_file="/k.pem")
    assert {key: found[key] for key in found if key.startswith(("security", "ssl", "sasl"))} == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": "/ca.pem",
        "ssl.certificate.location": "/c.pem",
        "ssl.key.location": "/k.pem",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "edge",
        "sasl.password": "s3cret",
    }


def test_what_is_not_set_is_left_to_librdkafka():
    assert not [key for key in config() if key.startswith(("ssl", "sasl"))]


def test_a_password_file_holds_the_password_and_perhaps_a_newline(tmp_path: Path):
    file = tmp_path / "password"
    file.write_text("from file\n")
    assert config(**SASL, password_file=file)["sasl.password"] == "from file"


def test_a_password_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match="nothing-here"):
        config(**SASL, password_file=tmp_path / "nothing-here")


def test_a_password_file_that_is_no_text_is_named_and_nothing_of_it_is_told(tmp_path: Path):
    file = tmp_path / "password"
    file.write_bytes(b"s3cret\xff")
    with pytest.raises(ConfigError, match="password: expected UTF-8") as error:
        config(**SASL, password_file=file)
    assert "s3cret" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        (Consumer, (CONSUMER, CLASSIC_GROUP, {"group.id": "g"})),
        (Consumer, (CONSUMER, EMBEDDED_CONSUMER, CONSUMER_GROUP, {"group.id": "g"})),
        (Producer, (PRODUCER,)),
    ],
)
def test_librdkafka_takes_every_setting(kind, parts):
    cluster = Cluster(LinkSettings(brokers="127.0.0.1:1"), "back", "branchy.")
    cluster.client(kind, *parts)


def test_the_users_own_options_win():
    cluster = Cluster(LinkSettings(brokers="127.0.0.1:1", options={"linger.ms": "7"}), "back", "branchy.")
    seen = {}
    cluster.client(seen.update, PRODUCER)
    assert seen["linger.ms"] == "7"


def test_an_option_that_librdkafka_does_not_know_is_named():
    cluster = Cluster(LinkSettings(brokers="127.0.0.1:1", options={"no.such.key": "7"}), "back", "branchy.")
    with pytest.raises(ConfigError, match=r"no\.such\.key"):
        cluster.client(Producer, PRODUCER)


def test_secrets_are_in_no_repr_and_no_error():
    settings = LinkSettings(**SASL, password="s3cret", options={"no.such.key": "7"})
    link = KafkaLink(settings, "back")
    with pytest.raises(ConfigError) as refused:
        link.prepare(["branchy.a.requests"], 1)
    assert "s3cret" not in repr(link) + repr(settings) + str(refused.value) + repr(link.__dict__)


def test_without_named_brokers_the_address_file_tells(tmp_path: Path):
    file = tmp_path / "broker.json"
    file.write_text(json.dumps({"brokers": "127.0.0.1:4711"}))
    assert broker_addresses(LinkSettings(), file) == "127.0.0.1:4711"
    assert broker_addresses(LinkSettings(brokers="other:1"), file) == "other:1"


def test_without_named_brokers_and_address_file_it_says_what_to_do(tmp_path: Path):
    with pytest.raises(BrokerUnavailableError, match="branchy broker start --embedded"):
        broker_addresses(LinkSettings(), tmp_path / "broker.json")


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"brokers": '])
def test_an_address_file_that_is_none_is_named(tmp_path: Path, content: str):
    file = tmp_path / "broker.json"
    file.write_text(content)
    with pytest.raises(BrokerUnavailableError, match=r"broker\.json"):
        broker_addresses(LinkSettings(), file)


def test_librdkafkas_lines_go_through_logging_one_of_a_kind_in_a_while(caplog: pytest.LogCaptureFixture):
    logger = client_config(LinkSettings(brokers="127.0.0.1:1"), "only-here", lambda error: None)["logger"]
    with caplog.at_level(logging.INFO, logger=logger.name):
        for line in ("FAIL first", "FAIL second", "REQTMOUT other", "CONFWARN is a consumer property"):
            logger.error(line)
    assert caplog.messages == ["FAIL first", "REQTMOUT other"]


def test_a_client_without_brokers_writes_nothing_to_standard_error_itself(capfd):
    link = KafkaLink(LinkSettings(brokers="127.0.0.1:1"), "nowhere")
    with pytest.raises(BrokerUnavailableError):
        link.prepare(["branchy.a.requests"], 0.5)
    link.close()
    assert "|FAIL|" not in capfd.readouterr().err, "its own lines look so; those of logging are another's wish"
