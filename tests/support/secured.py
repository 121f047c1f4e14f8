"""A secured Kafka's users as settings, and branchy's commands run to their end."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from commands import TIMEOUT_S, Command

from branchy.brokers.apache_kafka import KafkaCluster
from branchy.brokers.kafka_users import KafkaUsers
from branchy.config import LinkSettings


def settings_of(users: KafkaUsers, name: str, **changes: Any) -> LinkSettings:
    """What a user's settings file says, with changes; None leaves a setting out."""
    found = tomllib.loads(users.settings_file(name).read_text())["back"] | changes
    return LinkSettings(**{key: value for key, value in found.items() if value is not None})


def write_settings(file: Path, settings: LinkSettings) -> Path:
    """A settings file with these for the back."""
    given = settings.model_dump(exclude_none=True, exclude_defaults=True, mode="json")
    file.write_text("[back]\n" + "".join(f"{key} = {value!r}\n" for key, value in given.items()))
    return file


def run(folder: Path, *arguments: object) -> tuple[int, str]:
    """Run a command to its end; its exit code and all that it said."""
    with Command(folder, *arguments) as command:
        return command.process.wait(TIMEOUT_S), command.log()


def passwords(cluster: KafkaCluster) -> list[str]:
    """All of its users', and the brokers' own."""
    found = [file.read_text() for file in cluster.users.folder.glob("*.password")]
    assert len(found) > 1
    return found
