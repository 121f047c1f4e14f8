"""Who may use a secured Kafka on this machine: certificates, passwords, settings files, the operator's rules.

All is in the cluster's folder `users`, which nobody else may read. A secret never goes over a
command line: Kafka reads the broker's own password from its file, and its tool from one too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from branchy.brokers.certificates import AUTHORITY, authority_file, certificate_file, make_certificates
from branchy.brokers.running import USERS_FOLDER
from branchy.errors import BranchyError

BROKER = "broker"
"""The nodes' own user, who may do everything."""

OPERATOR = "operator"
USERS = ("device", "edge", "fog", "cloud")
"""Made unless others are named; the operator is always made."""

RESERVED = frozenset({BROKER, AUTHORITY})
PREFIX = "branchy."
"""Of all topics and groups that are branchy's."""

SCRAM_ITERATIONS = 4096
ADMIN_TIMEOUT_S = 20.0
_ALL = AclBindingFilter(
    ResourceType.ANY, None, ResourcePatternType.ANY, None, None, AclOperation.ANY, AclPermissionType.ANY
)


class KafkaUsers:
    """The users of one cluster.

    Args:
        data: the cluster's folder.
        security: Kafka's security protocol; with `PLAINTEXT` there are no users.
        names: without the broker and the operator.
    """

    def __init__(self, data: Path, security: str, names: Sequence[str]) -> None:
        self.folder = data / USERS_FOLDER
        self._tls, self._sasl = security.endswith("SSL"), security.startswith("SASL")
        self._security = security
        self.names = (*names, OPERATOR) if security != "PLAINTEXT" else ()

    def make(self, hosts: str) -> None:
        """Make the certificates and passwords that are not there yet.

        Args:
            hosts: of the nodes, as X.509 writes them.

        Raises:
            BranchyError: `openssl` is needed and not there, or fails.
        """
        if not self.names:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.parent.chmod(0o700)  # what the nodes keep is as private as the users' secrets
        if self._tls:
            # With SASL a password says who somebody is, so that only the nodes need a certificate.
            make_certificates(self.folder, [BROKER] if self._sasl else [BROKER, *self.names], hosts)
        if self._sasl:
            for name in (BROKER, *self.names):
                if not self._password_file(name).exists():
                    write_private(self._password_file(name), secrets.token_urlsafe(24))

    @contextlib.contextmanager
    def bootstrap_arguments(self) -> Iterator[tuple[str, ...]]:
        """More arguments of Kafka's `format`: the nodes' own user, without whom no other could be made.

        They are in a file for as long as this lasts: an argument can be seen by everybody.
        """
        if not self._sasl:
            yield ()
            return
        file = self.folder / "format.arguments"
        write_private(file, f"--add-scram\nSCRAM-SHA-512=[name={BROKER},password={self._password(BROKER)}]\n")
        try:
            yield (f"@{file}",)
        finally:
            file.unlink()

    def client_config(self, name: str) -> Mapping[str, str]:
        """Librdkafka's settings for one of the users."""
        config = {"security.protocol": self._security}
        if self._tls:
            config["ssl.ca.location"] = str(authority_file(self.folder))
        if self._sasl:
            config |= {"sasl.mechanism": "SCRAM-SHA-512", "sasl.username": name, "sasl.password": self._password(name)}
        elif self._tls:
            file = str(certificate_file(self.folder, name))
            config |= {"ssl.certificate.location": file, "ssl.key.location": file}
        return config

    def settings_file(self, name: str) -> Path:
        """What one of them gives to `--config`."""
        return self.folder / f"{name}.toml"

    def write_settings(self, brokers: str) -> None:
        """Write a settings file a user: addresses and paths, no secret."""
        for name in self.names:
            link = {"brokers": brokers, "security": self._security}
            if self._tls:
                link["ca_file"] = str(authority_file(self.folder))
            if self._sasl:
                password_file = str(self._password_file(name))
                link |= {"sasl_mechanism": "SCRAM-SHA-512", "username": name, "password_file": password_file}
            elif self._tls:
                file = str(certificate_file(self.folder, name))
                link |= {"certificate_file": file, "key_file": file}
            lines = [f"{key} = {json.dumps(value)}\n" for key, value in link.items()]
            write_private(self.settings_file(name), "".join(["[back]\n", *lines]))

    def register(self, admin: Any) -> None:
        """Tell the brokers the users' passwords, and what the operator may do.

        Args:
            admin: a client that logged in as the broker.

        Raises:
            BranchyError: the brokers do not take them.
        """
        if not self.names:
            return
        try:
            if self._sasl:
                info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
                users = [UserScramCredentialUpsertion(name, info, self._password(name).encode()) for name in self.names]
                for done in admin.alter_user_scram_credentials(users, request_timeout=ADMIN_TIMEOUT_S).values():
                    done.result()
            rules = _operators_rules()
            for done in admin.create_acls(rules, request_timeout=ADMIN_TIMEOUT_S).values():
                done.result()
            # Brokers take them from the controller's log: who has the rules has what was before them, the users, too.
            deadline_s = time.monotonic() + ADMIN_TIMEOUT_S
            while not set(rules) <= set(admin.describe_acls(_ALL, request_timeout=ADMIN_TIMEOUT_S).result()):
                if time.monotonic() > deadline_s:
                    raise BranchyError(f"Kafka does not go by its users' rights within {ADMIN_TIMEOUT_S:g} s")
                time.sleep(0.05)
        except KafkaException as error:
            raise BranchyError(f"Kafka does not take its users: {error.args[0].str()}") from None

    def _password_file(self, name: str) -> Path:
        return self.folder / f"{name}.password"

    def _password(self, name: str) -> str:
        try:
            return self._password_file(name).read_text(encoding="ascii")
        except OSError as error:
            raise BranchyError(f"{self._password_file(name)}: cannot be read: {error.strerror}") from None


def server_security(security: str) -> Mapping[str, str]:
    """A node's settings for a secured cluster; file names count from the node's folder.

    Clients and nodes use one listener, and the controllers' has the same protocol. There PLAIN takes the place of
    SCRAM, whose passwords are in the metadata that controllers have to agree on first. With TLS alone a certificate
    says who somebody is; with SASL a password does, and no certificate is asked for.
    """
    if security == "PLAINTEXT":
        return {}
    out = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": f"User:{BROKER}",
    }
    if security.endswith("SSL"):
        out |= {
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": f"../{USERS_FOLDER}/{BROKER}.pem",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": f"../{USERS_FOLDER}/{AUTHORITY}.pem",
        }
    if security == "SSL":
        out |= {
            "ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^CN=([A-Za-z0-9._-]+)$/$1/",
        }
    if security.startswith("SASL"):
        password = f'username="{BROKER}" password="${{files:../{USERS_FOLDER}:{BROKER}.password}}"'
        known = f'user_{BROKER}="${{files:../{USERS_FOLDER}:{BROKER}.password}}"'
        login = "org.apache.kafka.common.security"
        out |= {
            "config.providers": "files",
            "config.providers.files.class": "org.apache.kafka.common.config.provider.DirectoryConfigProvider",
            "sasl.mechanism.inter.broker.protocol": "SCRAM-SHA-512",
            "listener.name.clients.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            "listener.name.clients.scram-sha-512.sasl.jaas.config": (
                f"{login}.scram.ScramLoginModule required {password};"
            ),
            "sasl.mechanism.controller.protocol": "PLAIN",
            "listener.name.controller.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.controller.plain.sasl.jaas.config": (
                f"{login}.plain.PlainLoginModule required {password} {known};"
            ),
        }
    return out


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on; one that is there is replaced whole."""
    temporary = partial_of(file)
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(descriptor)  # else the name may outlive a power cut, and what was written not
    temporary.rename(file)


def partial_of(file: Path) -> Path:
    """What `write_private` leaves where it is cut short."""
    return file.with_name(f".{file.name}.partial")


def _operators_rules() -> list[AclBinding]:
    """All of branchy's topics and groups, giving rights on them, and a look at the brokers' settings; no more."""
    cluster = ResourceType.BROKER, "kafka-cluster", ResourcePatternType.LITERAL
    allowed = [
        (ResourceType.TOPIC, PREFIX, ResourcePatternType.PREFIXED, AclOperation.ALL),
        (ResourceType.GROUP, PREFIX, ResourcePatternType.PREFIXED, AclOperation.ALL),
        (*cluster, AclOperation.ALTER),
        (*cluster, AclOperation.DESCRIBE),
        (*cluster, AclOperation.DESCRIBE_CONFIGS),  # how many copies a topic has unless told
    ]
    return [
        AclBinding(kind, name, pattern, f"User:{OPERATOR}", "*", operation, AclPermissionType.ALLOW)
        for kind, name, pattern, operation in allowed
    ]
