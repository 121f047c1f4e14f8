"""The Dockerfiles, as far as reading tells; `make images` builds them."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from pathlib import Path

import deployment
import pytest
from deployment import DOCKERFILES, ROOT, instructions, pairs, stages

import branchy
from branchy.config import ServeSettings, load

FILES = sorted(DOCKERFILES.glob("*.Dockerfile"))
SERVING = [file for file in FILES if "train" not in file.name]
each = pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
each_serving = pytest.mark.parametrize("file", SERVING, ids=lambda file: file.stem)


def test_there_are_the_four_images():
    assert [file.name.removesuffix(".Dockerfile") for file in FILES] == ["all-in-one", "cloud", "edge", "train"]


@each
def test_an_image_is_made_in_stages_of_one_base_that_is_an_argument(file: Path):
    first, *_ = instructions(file)
    assert re.fullmatch(r"BASE=[\w./-]+:[\w.-]+", first.value), "a tag that says which"
    assert [stage[0].value for stage in stages(file)] == ["${BASE} AS build", "${BASE}"]


@each
def test_the_image_needs_no_shell(file: Path):
    for stage in stages(file):
        for instruction in stage:
            assert instruction.keyword != "SHELL"
            if instruction.keyword in {"RUN", "ENTRYPOINT", "CMD"}:
                assert instruction.value.startswith("["), f"exec form: {instruction}"
    assert "RUN" not in {instruction.keyword for instruction in stages(file)[-1]}


@each
def test_the_tier_is_the_first_process_so_that_it_gets_sigterm_and_the_user_is_not_root(file: Path):
    last = stages(file)[-1]
    said = {instruction.keyword: instruction for instruction in last}
    assert said["ENTRYPOINT"].words[0] == "branchy"
    assert said["STOPSIGNAL"].value == "SIGTERM"
    user, group = said["USER"].value.split(":")
    assert min(int(user), int(group)) > 0, "a number, so that an orchestrator can see that it is not root"
    after = [instruction.keyword for instruction in last[last.index(said["USER"]) :]]
    assert "COPY" not in after
    assert not any(instruction.keyword == "VOLUME" for instruction in last)


@each
def test_what_is_copied_is_there_and_not_ignored(file: Path):
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    kept = [line[1:] for line in ignore if line.startswith("!")]
    built = {"/opt/branchy", "/bundle"}
    for instruction in instructions(file):
        if instruction.keyword in {"COPY", "ADD"}:
            assert instruction.keyword == "COPY"
            words = [word for word in instruction.words if not word.startswith("--")]
            for source in words[:-1]:
                if "--from=build" in instruction.words:
                    assert source in built
                elif source == "${BUNDLE}":
                    assert pairs(stages(file)[0], "ARG")["BUNDLE"].startswith("saved_models/")
                    assert "saved_models" in kept
                else:
                    assert (ROOT / source).exists()
                    assert any(fnmatch(source, pattern) for pattern in kept), f"{source} is ignored"


@each
def test_what_is_installed_are_extras_that_there_are_at_versions_that_were_tried(file: Path):
    (line,) = [i.words for i in instructions(file) if i.keyword == "RUN" and "pip" in i.words]
    assert line[line.index("-c") + 1] == "constraints.txt"
    extras = re.fullmatch(r"\.(?:\[([\w,]+)\])?", line[-1])
    assert extras, line[-1]
    import tomllib

    known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    wanted = set((extras[1] or "").split(",")) - {""}
    assert wanted <= set(known)
    assert ("train" in wanted) == (file.name == "train.Dockerfile"), "TensorFlow is in the training's image alone"


@each
def test_how_pip_reaches_its_index_is_a_secret_that_no_image_keeps(file: Path):
    runs = [i for i in instructions(file) if i.keyword == "RUN"]
    assert [i.flags for i in runs if "pip" in i.words] == [("--mount=type=secret,id=pip,target=/etc/pip.conf",)]
    assert not any(i.flags for i in runs if "pip" not in i.words)


@each
def test_its_labels_are_those_of_the_open_container_initiative(file: Path):
    labels = pairs(stages(file)[-1], "LABEL")
    assert {name.removeprefix("org.opencontainers.image.") for name in labels} == {
        "title",
        "description",
        "version",
        "revision",
        "licenses",
    }
    assert pairs(stages(file)[-1], "ARG")["VERSION"] == branchy.__version__


@each
def test_every_variable_and_command_line_in_it_is_one_of_branchys(file: Path):
    assert deployment.branchy_words(file.read_text(encoding="utf-8")) <= deployment.known_variables()
    for instruction in instructions(file):
        words = re.sub(r".*?CMD (\[)", r"\1", instruction.value) if instruction.keyword == "HEALTHCHECK" else None
        if instruction.keyword == "ENTRYPOINT":
            command = [i.words for i in stages(file)[-1] if i.keyword == "CMD"]
            line = [*instruction.words, *(command[0] if command else [])]
        elif words and words.startswith("["):
            line = deployment.Instruction("CMD", words).words
        elif instruction.keyword == "RUN" and instruction.words[0].endswith("/branchy"):
            line = instruction.words
        else:
            continue
        assert Path(line[0]).name == "branchy"
        assert deployment.complaint(line[1:]) is None


@each_serving
def test_a_serving_image_has_all_that_a_tier_needs_but_its_brokers(file: Path, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    variables = pairs(stages(file)[-1], "ENV")
    for name, value in variables.items():
        if name.startswith("BRANCHY_"):
            monkeypatch.setenv(name, value)
    settings = load(ServeSettings, {"back": {"brokers": "kafka:9092"}})
    assert (settings.bundle, settings.health.port) == (Path("/bundle"), 9400)
    expected = {"edge": ("edge",), "cloud": ("fog", "cloud"), "all-in-one": ("edge", "fog", "cloud")}
    assert settings.tier == expected[file.name.removesuffix(".Dockerfile")]
    said = {instruction.keyword: instruction for instruction in stages(file)[-1]}
    assert said["EXPOSE"].value == "9400"
    assert 'CMD ["branchy", "health"]' in said["HEALTHCHECK"].value
