"""Apache Kafka's program files and a Java to run them: found, or assembled once by Maven."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from branchy.errors import BranchyError

KAFKA_VERSION = "4.2.0"
"""The one place that says which Kafka is assembled."""

SCALA_VERSION = "2.13"
LOG4J_VERSION = "2.25.3"
MAVEN_PLUGIN_VERSION = "3.8.1"
MINIMUM_JAVA = 17
MINIMUM_KAFKA = 4

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>branchy</groupId>
  <artifactId>kafka-assembly</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_{SCALA_VERSION}</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency><!-- without it Kafka logs nothing at all -->
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

_WAYS = (
    "there are three ways to one: install Maven and a Java of 17 or later (Debian and Ubuntu: apt-get install maven "
    "openjdk-17-jre-headless), and branchy assembles it; or unpack a tarball of Apache Kafka 4 and set KAFKA_HOME to "
    "its folder; or run the official container image apache/kafka and name its address with --back. To try things "
    "out, 'branchy broker start --embedded' needs none"
)


@dataclass(frozen=True, slots=True)
class KafkaHome:
    """A Kafka that can be run.

    Attributes:
        libs: the folder of its jars.
        java: the Java to run it with.
        version: Kafka's, such as `4.2.0`.
    """

    libs: Path
    java: str
    version: str

    def command(self, main_class: str, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        """The command line that runs one of Kafka's programs.

        Args:
            main_class: such as `kafka.Kafka`.
            arguments: of that program.
            options: of Java, such as `-Xmx384m`.
        """
        return [self.java, *options, "-cp", f"{self.libs}{os.sep}*", main_class, *arguments]


def find_kafka(environment: Mapping[str, str], say: Callable[[str], None]) -> KafkaHome:
    """Kafka from `KAFKA_HOME`, else the cache of an earlier run, else assembled by Maven into that cache.

    Args:
        environment: `KAFKA_HOME`, `JAVA_HOME`, `XDG_CACHE_HOME`, `HOME` and `PATH` count.
        say: takes a line before a wait.

    Raises:
        BranchyError: there is none to be had, or no Java that can run it; the message names the ways to one.
    """
    named = environment.get("KAFKA_HOME")
    if named:
        libs = Path(named).absolute() / "libs"
        return KafkaHome(libs, find_java(environment), _version_in(libs, "KAFKA_HOME"))
    cache = cache_folder(environment)
    if not cache.exists() and shutil.which("mvn", path=environment.get("PATH")) is None:
        raise BranchyError(f"no Apache Kafka here (KAFKA_HOME is not set, {cache} and Maven are not there); {_WAYS}")
    java = find_java(environment)
    if not cache.exists():
        say(f"assembling Apache Kafka {KAFKA_VERSION} with Maven into {cache} (45 MB, once)")
        _assemble(cache, environment)
    return KafkaHome(cache / "libs", java, _version_in(cache / "libs", "the cache; delete that folder to have it anew"))


def cache_folder(environment: Mapping[str, str]) -> Path:
    """Where the assembled Kafka is kept, by the XDG base directory specification."""
    base = Path(environment.get("XDG_CACHE_HOME", ""))  # a relative one counts as none, the specification says
    if not base.is_absolute():
        base = Path(environment.get("HOME") or Path.home()) / ".cache"
    return base / "branchy" / f"kafka-{KAFKA_VERSION}"


def find_java(environment: Mapping[str, str]) -> str:
    """The Java of `JAVA_HOME`, else the one on the path.

    Raises:
        BranchyError: there is none, it does not run, or it is too old for Kafka.
    """
    home = environment.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java", path=environment.get("PATH"))
    where = "JAVA_HOME" if home else "the path"
    needs = f"Apache Kafka needs a Java of {MINIMUM_JAVA} or later (Debian and Ubuntu: openjdk-17-jre-headless)"
    if java is None:
        raise BranchyError(f"{needs}; found none: JAVA_HOME is not set and no java is on the path")
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BranchyError(f"{needs}; {java} of {where} does not run: {error}") from None
    version = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    if version is None:
        raise BranchyError(f"{needs}; {java} of {where} does not say its version: {done.stderr.strip()!r:.120}")
    if int(version[1]) < MINIMUM_JAVA:
        raise BranchyError(f"{needs}; {java} of {where} is Java {version[1]}")
    return java


def _version_in(libs: Path, origin: str) -> str:
    """The version of the Kafka in a folder of jars, by the name of its main jar."""
    expected = f"expected {libs} to hold the jars of Apache Kafka {MINIMUM_KAFKA} or later (it comes from {origin})"
    names = [re.fullmatch(r"kafka_[\d.]+-(\d+)(\.\d+.*)\.jar", path.name) for path in libs.glob("kafka_*.jar")]
    versions = [match for match in names if match is not None]
    if not versions:
        raise BranchyError(f"{expected}, found no kafka_*.jar there")
    major, rest = versions[0][1], versions[0][2]
    if int(major) < MINIMUM_KAFKA:
        raise BranchyError(f"{expected}, found {major}{rest}")
    return f"{major}{rest}"


def _assemble(target: Path, environment: Mapping[str, str]) -> None:
    """Have Maven copy Kafka and what it needs into a temporary folder beside the target, and rename that."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kafka-") as temporary:
            _run_maven(Path(temporary), environment)
            _put(Path(temporary) / "kafka", target)
    except OSError as error:
        raise BranchyError(f"{target}: cannot be written: {error.strerror}") from None


def _run_maven(folder: Path, environment: Mapping[str, str]) -> None:
    (folder / "pom.xml").write_text(_POM, encoding="utf-8")
    goal = f"org.apache.maven.plugins:maven-dependency-plugin:{MAVEN_PLUGIN_VERSION}:copy-dependencies"
    command = ["mvn", "--batch-mode", "--quiet", goal, "-DincludeScope=runtime", "-DoutputDirectory=kafka/libs"]
    done = subprocess.run(
        command,
        cwd=folder,
        env=dict(environment),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("[ERROR]")]
        words = lines[0].removeprefix("[ERROR]").strip() if lines else f"exit code {done.returncode}"
        raise BranchyError(f"Maven could not assemble Apache Kafka ({words[:300]}); {_WAYS}")


def _put(made: Path, target: Path) -> None:
    try:
        made.rename(target)
    except OSError:
        if not target.is_dir():  # somebody else assembled it at the same time: theirs is as good
            raise
