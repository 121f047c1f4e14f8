"""What the documents say is there is there."""

import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from branchy.cli.main import COMMANDS, cli

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    path
    for pattern in ("*.md", "*/README.md", "deploy/*/README.md", "docs/*.md")
    for path in sorted(ROOT.glob(pattern))
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


def shell_lines(text):
    """Command lines of the ```sh blocks, without comments."""
    lines = "".join(SHELL_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def branchy_lines():
    for document in DOCUMENTS:
        for line in shell_lines(document.read_text(encoding="utf-8")):
            words = shlex.split(line, comments=True)
            if words[0] == "branchy":
                yield pytest.param(words[1:], id=f"{document.name}: {line}")


def command_of(words):
    """The command that these words call, and the words that are its own."""
    command, ctx = cli, click.Context(cli)
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(ctx, words[0])
        assert found is not None, f"there is no command {words[0]}"
        command, words = found, words[1:]
    return command, words


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_that_begins_with_a_sentence(name):
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    command = cli.get_command(click.Context(cli), name)
    assert command.help
    assert command.help.strip().splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name):
    todo = [cli.get_command(click.Context(cli), name)]
    while todo:
        command = todo.pop()
        if isinstance(command, click.Group):
            todo += command.commands.values()
        assert command.help, command.name
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{name}: {parameter.opts}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name):
    assert re.search(rf"`branchy {name}\b|^branchy {name}\b", README, re.MULTILINE)


@pytest.mark.parametrize("words", list(branchy_lines()))
def test_every_command_line_in_the_documents_is_one_that_branchy_takes(words):
    command, arguments = command_of(words)
    with click.Context(command, info_name="branchy") as ctx:
        values, rest, _ = command.make_parser(ctx).parse_args(list(arguments))
        assert rest == []
        for parameter in command.params:
            if parameter.name in values and not isinstance(parameter.type, click.Path):
                parameter.type_cast_value(ctx, values[parameter.name])


@pytest.mark.parametrize("target", re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
def test_every_make_target_but_help_is_said_in_the_help(target):
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert target == "help" or f'"make {target}' in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_path_that_a_document_links_to_is_there(document):
    for link in re.findall(r"\]\(([^)#]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in link:
            assert (document.parent / link).exists(), link


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: str(d.relative_to(ROOT)))
def test_every_module_that_a_document_names_is_there(document):
    floors = "cli|runner|reports|models|engines|datasets|store|transport|brokers|core|tests|branchy"
    for path in re.findall(rf"`((?:{floors})/[\w/]+(?:\.py|/))`", document.read_text(encoding="utf-8")):
        assert (ROOT / path).exists() or (ROOT / "branchy" / path).exists(), path


def test_nothing_is_pinned_to_a_registry():
    for name in ("constraints.txt", "pyproject.toml", "Makefile"):
        assert "index" not in (ROOT / name).read_text(encoding="utf-8").replace("class index", "")


def test_wherever_tensorflow_is_asked_for_keras_is_as_new_as_safe_mode_needs():
    """Of older ones a model's file runs code, and TensorFlow itself takes them."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    with_tensorflow = {name: asked for name, asked in extras.items() if any(a.startswith("tensorflow") for a in asked)}
    assert with_tensorflow
    (least,) = re.findall(r"ask for `keras>=([\d.]+)`", (ROOT / "docs" / "security.md").read_text(encoding="utf-8"))
    assert version(least) >= (3, 14)
    for name, asked in with_tensorflow.items():
        assert f"keras>={least},<4" in asked, name
    (pinned,) = re.findall(r"^keras==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert version(pinned) >= version(least)


def version(text):
    return tuple(map(int, text.split(".")))
