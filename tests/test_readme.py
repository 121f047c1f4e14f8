"""The README's tour by hand and its Python, word for word, with every process in a terminal of its own."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from branchy.reports.csv import read_csv

pytestmark = pytest.mark.alone

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
SERVERS = {"branchy serve": "ready", "branchy broker start": "broker at"}
"""Commands that stay, and what they say once they are there."""


def blocks(section, language):
    """The fenced blocks of one section, in order."""
    text = README.split(f"## {section}\n")[1].split("\n## ")[0]
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


class Terminals:
    """Runs command lines as a person does in terminals side by side, all in one folder."""

    def __init__(self, folder):
        self.folder = folder
        self.servers = {}
        # what `. .venv/bin/activate` does
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}

    def run(self, line):
        """Run a line to its end, or, for a server, until it says that it is there."""
        for command, sign in SERVERS.items():
            if line.startswith(command):
                return self._serve(line, sign)
        done = subprocess.run(
            shlex.split(line), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        return done.stdout

    def _serve(self, line, sign):
        log = (self.folder / f"terminal-{len(self.servers)}.log").open("w+", encoding="utf-8")
        server = subprocess.Popen(
            shlex.split(line), cwd=self.folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT
        )
        self.servers[line] = server
        with log:
            while sign not in Path(log.name).read_text(encoding="utf-8"):
                assert server.poll() is None, Path(log.name).read_text(encoding="utf-8")

    def end(self, line):
        """Ctrl-C in that line's terminal."""
        server = self.servers.pop(line)
        server.send_signal(signal.SIGINT)
        assert server.wait(30) == 0, line

    def close(self):
        for server in self.servers.values():
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def tour(tmp_path_factory):
    """The tour up to its end; returns the folder and what each line printed."""
    terminals = Terminals(tmp_path_factory.mktemp("tour"))
    printed = {}
    try:
        for line in "".join(blocks("Five minutes by hand", "sh")).splitlines():
            if line == ". .venv/bin/activate":
                continue
            if "without-cloud" in line and line.startswith("branchy device"):
                terminals.end("branchy serve --bundle saved_models/digits --tier cloud")
            printed[line] = terminals.run(line)
        (python,) = blocks("From Python", "python")
        printed["python"] = terminals.run(shlex.join([sys.executable, "-c", python]))
        yield terminals.folder, printed
        for line in list(terminals.servers):
            terminals.end(line)
    finally:
        terminals.close()


@pytest.mark.slow
def test_every_sample_is_answered_with_and_without_the_cloud(tour):
    folder, _ = tour
    with_cloud, without = (read_csv(folder / f"results{name}.csv").rows for name in ("", "-without-cloud"))
    assert {row.tier for row in with_cloud} == {"edge", "fog", "cloud"}
    assert {row.reason for row in with_cloud} == {"confident", "final"}
    assert {row.tier for row in without} == {"edge", "fog"}
    assert {row.reason for row in without} >= {"confident", "timeout"}
    assert len(with_cloud) == len(without)


@pytest.mark.slow
def test_what_the_tour_promises_to_print_is_printed(tour):
    _, printed = tour
    shown = {line.split()[1]: text for line, text in printed.items() if line != "python"}
    assert "answered by fog" in shown["device"]
    assert "test samples" in shown["evaluate"]
    assert "edge" in shown["inspect"]
    assert "edge" in shown["report"]


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tour):
    first, second = tour[1]["python"].splitlines()[-2:]
    for line in (first, second):
        label, tier, *_ = line.split()
        assert label in "0123456789"
        assert tier in ("edge", "fog", "cloud")
