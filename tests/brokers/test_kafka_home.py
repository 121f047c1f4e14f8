from __future__ import annotations

import os
from pathlib import Path

import pytest

from branchy.brokers.kafka_home import KAFKA_VERSION, cache_folder, find_java, find_kafka
from branchy.errors import BranchyError

MAIN_JAR = f"kafka_2.13-{KAFKA_VERSION}.jar"


def program(folder: Path, name: str, script: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def java(folder: Path, version: str = "17.0.15") -> Path:
    return program(folder, "java", f"echo 'openjdk version \"{version}\" 2025-04-15' >&2")


def kafka(folder: Path, jar: str = MAIN_JAR) -> Path:
    (folder / "libs").mkdir(parents=True)
    (folder / "libs" / jar).touch()
    return folder


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """A machine with a Java, `sh` and its tools, and nothing else."""
    java(tmp_path / "bin")
    return {"PATH": f"{tmp_path / 'bin'}", "HOME": str(tmp_path / "home")}


def maven(tmp_path: Path, script: str) -> None:
    tools = os.environ["PATH"]
    program(tmp_path / "bin", "mvn", f"PATH={tools}; cp pom.xml {tmp_path}/pom.xml; {script}")


def error_of(environment: dict[str, str]) -> str:
    with pytest.raises(BranchyError) as error:
        find_kafka(environment, lambda line: None)
    text = str(error.value)
    assert "\n" not in text
    return text


def test_kafka_home_comes_first(env, tmp_path):
    kafka(tmp_path / "mine", "kafka_2.13-4.1.1.jar")
    kafka(cache_folder(env))
    home = find_kafka({**env, "KAFKA_HOME": str(tmp_path / "mine")}, pytest.fail)
    assert (home.libs, home.version) == (tmp_path / "mine" / "libs", "4.1.1")


def test_then_the_cache_of_an_earlier_run(env, tmp_path):
    maven(tmp_path, "exit 1")
    kafka(cache_folder(env))
    home = find_kafka(env, pytest.fail)
    assert home.libs == cache_folder(env) / "libs"
    assert home.java == str(tmp_path / "bin" / "java")


def test_then_maven_assembles_it_once_and_says_so(env, tmp_path):
    maven(tmp_path, f"mkdir -p kafka/libs && touch kafka/libs/{MAIN_JAR}")
    said: list[str] = []
    assert find_kafka(env, said.append).version == KAFKA_VERSION
    assert find_kafka(env, said.append).libs == cache_folder(env) / "libs"
    assert len(said) == 1
    assert KAFKA_VERSION in said[0]
    pom = (tmp_path / "pom.xml").read_text()
    assert f"<artifactId>kafka_2.13</artifactId>\n      <version>{KAFKA_VERSION}</version>" in pom
    assert [path.name for path in cache_folder(env).parent.iterdir()] == [cache_folder(env).name]


def test_a_failed_assembly_leaves_nothing_and_tells_mavens_reason_and_the_other_ways(env, tmp_path):
    maven(tmp_path, f"mkdir -p kafka/libs && touch kafka/libs/{MAIN_JAR}; echo '[ERROR] no such artifact'; exit 1")
    text = error_of(env)
    assert "no such artifact" in text
    assert "KAFKA_HOME" in text
    assert list(cache_folder(env).parent.iterdir()) == []


def test_of_two_that_assemble_at_once_the_second_takes_the_firsts(env, tmp_path):
    target = cache_folder(env)
    make = f"mkdir -p kafka/libs {target}/libs && touch kafka/libs/{MAIN_JAR} {target}/libs/{MAIN_JAR}"
    maven(tmp_path, f"{make} {target}/libs/first")
    assert (find_kafka(env, lambda line: None).libs / "first").exists()


def test_none_to_be_had_names_the_three_ways_and_the_embedded_one(env):
    text = error_of(env)
    for way in ("maven", "KAFKA_HOME", "apache/kafka", "--embedded"):
        assert way in text


@pytest.mark.parametrize("jar", ["other.jar", "kafka_2.13-3.9.1.jar"])
def test_a_kafka_home_without_a_kafka_4_is_named(env, tmp_path, jar):
    kafka(tmp_path / "mine", jar)
    text = error_of({**env, "KAFKA_HOME": str(tmp_path / "mine")})
    assert str(tmp_path / "mine" / "libs") in text
    assert ("3.9.1" in text) == ("3.9.1" in jar)


def test_a_cache_that_lost_its_jars_is_told_how_to_mend(env):
    (cache_folder(env) / "libs").mkdir(parents=True)
    assert "delete that folder" in error_of(env)


def test_the_cache_is_where_xdg_says_and_a_relative_one_counts_as_none(tmp_path):
    named = cache_folder({"HOME": "/home/ada", "XDG_CACHE_HOME": str(tmp_path)})
    assert named == tmp_path / "branchy" / f"kafka-{KAFKA_VERSION}"
    for environment in ({"HOME": "/home/ada"}, {"HOME": "/home/ada", "XDG_CACHE_HOME": "cache"}):
        assert cache_folder(environment) == Path(f"/home/ada/.cache/branchy/kafka-{KAFKA_VERSION}")


@pytest.mark.parametrize("version", ["17.0.15", "17", "21.0.2", "25-ea"])
def test_a_java_of_17_or_later_will_do(tmp_path, version):
    assert find_java({"PATH": str(java(tmp_path, version).parent)}) == str(tmp_path / "java")


@pytest.mark.parametrize(("version", "said"), [("1.8.0_402", "is Java 8"), ("11.0.22", "is Java 11")])
def test_an_older_java_is_refused_with_its_version(tmp_path, version, said):
    with pytest.raises(BranchyError, match=said):
        find_java({"PATH": str(java(tmp_path, version).parent)})


def test_java_home_comes_before_the_path(env, tmp_path):
    java(tmp_path / "old" / "bin", "11.0.22")
    with pytest.raises(BranchyError, match="of JAVA_HOME is Java 11"):
        find_java({**env, "JAVA_HOME": str(tmp_path / "old")})


def test_no_java_and_one_that_does_not_run_are_told_apart(tmp_path):
    with pytest.raises(BranchyError, match="no java is on the path"):
        find_java({"PATH": str(tmp_path)})
    with pytest.raises(BranchyError, match="does not run"):
        find_java({"JAVA_HOME": str(tmp_path)})
    program(tmp_path, "java", "echo what? >&2")
    with pytest.raises(BranchyError, match="does not say its version: 'what\\?'"):
        find_java({"PATH": str(tmp_path)})
