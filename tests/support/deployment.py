"""What Dockerfiles and manifests say, read so that it can be held against branchy's own settings and flags."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click
from pydantic import BaseModel

from branchy.cli.main import cli
from branchy.config import DeviceSettings, ProbeSettings, ServeSettings

ROOT = Path(__file__).parents[2]
DOCKERFILES = ROOT / "dockerfiles"


class Instruction(NamedTuple):
    """One instruction of a Dockerfile: its keyword in capitals, and what follows, of a RUN without its flags."""

    keyword: str
    value: str
    flags: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        """The words of the exec form or of a plain line."""
        if self.value.startswith("["):
            return list(json.loads(self.value))
        return shlex.split(self.value)


def instructions(dockerfile: Path) -> list[Instruction]:
    """All of a Dockerfile, continued lines joined."""
    text = dockerfile.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [_instruction(*line.split(None, 1)) for line in lines]


def _instruction(keyword: str, rest: str) -> Instruction:
    flags: list[str] = []
    while keyword.upper() == "RUN" and rest.startswith("--"):
        flag, rest = rest.split(None, 1)
        flags.append(flag)
    return Instruction(keyword.upper(), rest.strip(), tuple(flags))


def stages(dockerfile: Path) -> list[list[Instruction]]:
    """A Dockerfile's stages, each from its `FROM` on; the last is the image."""
    found: list[list[Instruction]] = []
    for instruction in instructions(dockerfile):
        if instruction.keyword == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def pairs(stage: Sequence[Instruction], keyword: str) -> dict[str, str]:
    """All of a stage's `ENV`s or `LABEL`s."""
    words = [word for each in stage if each.keyword == keyword for word in shlex.split(each.value)]
    return dict(word.split("=", 1) for word in words)


def known_variables() -> set[str]:
    """Every `BRANCHY_*` variable that a setting can come from."""

    def names(model: type[BaseModel], prefix: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            inner = list(_models(field.annotation))
            if inner:
                yield from names(inner[0], f"{prefix}{name.upper()}_")
            else:
                yield f"{prefix}{name.upper()}"

    kinds = (ServeSettings, DeviceSettings, ProbeSettings)
    return {name for kind in kinds for name in names(kind, "BRANCHY_")}


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    for each in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(each, type) and issubclass(each, BaseModel):
            yield each


def complaint(words: Sequence[str]) -> str | None:
    """Why `branchy WORDS...` is no command line that branchy takes; None when it is one."""
    command: click.Command = cli
    context = click.Context(cli, info_name="branchy")
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        found = command.get_command(context, left[0])
        if found is None:
            return f"there is no command {left[0]}"
        command, left = found, left[1:]
    try:
        command.make_context("branchy", left, resilient_parsing=False)
    except click.exceptions.Exit:
        return None  # --help
    except click.ClickException as error:
        return error.format_message()
    return None


def branchy_words(text: str) -> set[str]:
    """Every `BRANCHY_*` variable that a text names."""
    return set(re.findall(r"\bBRANCHY_[A-Z0-9_]+", text))
