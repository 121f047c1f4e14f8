"""A command of an image, run as a container would run it, as far as that goes without a container engine.

In a chroot with the image's user, variables and working directory; its root file system is read-only, /proc and /dev
are there, and it is the first process of a PID namespace. The network is the machine's.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from images.building import Image

RUN_TIMEOUT_S = 300.0

_ENTER = """
root=$1 directory=$2 user=$3 group=$4 scratch=$5
shift 5
set -eu
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
[ -z "$scratch" ] || mount --bind "$scratch" "$root/tmp"
exec unshare --root="$root" --wd="$directory" --setgid="$group" --setuid="$user" -- "$@"
"""


class Inside:
    """A process in an image; killed, and waited for, when the `with` ends.

    Args:
        image: which one.
        command: the program, by the image's own PATH, and its words.
        variables: beside the image's own.
        scratch: a folder of this machine that is its /tmp; None: even /tmp is read-only.
    """

    def __init__(
        self, image: Image, *command: str, variables: Mapping[str, str] | None = None, scratch: Path | None = None
    ) -> None:
        own = dict(each.split("=", 1) for each in image.config["Env"])
        user, group = image.config["User"].split(":")
        where = (str(image.root), image.config["WorkingDir"], user, group, str(scratch or ""))
        enter = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _ENTER, "sh", *where)
        self._process = subprocess.Popen(
            [*enter, *command],
            env={**own, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self, timeout_s: float = RUN_TIMEOUT_S) -> tuple[int, str]:
        """Its exit code, and all that it printed.

        Raises:
            subprocess.TimeoutExpired: it did not end.
        """
        said, _ = self._process.communicate(timeout=timeout_s)
        return self._process.returncode, said

    def terminate(self) -> None:
        """Send SIGTERM to it, which `unshare` does not pass on."""
        self._signal(signal.SIGTERM)

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def __enter__(self) -> Inside:
        return self

    def __exit__(self, *error: object) -> None:
        if self.running:
            self._signal(signal.SIGKILL)  # --kill-child alone does not reach a process that has changed its user
            self._process.kill()
        self._process.communicate()

    def _signal(self, number: signal.Signals) -> None:
        outer = self._process.pid
        for child in Path(f"/proc/{outer}/task/{outer}/children").read_text(encoding="ascii").split():
            os.kill(int(child), number)


def run_inside(
    image: Image, *command: str, variables: Mapping[str, str] | None = None, scratch: Path | None = None
) -> tuple[int, str]:
    """The exit code of a command in an image, and all that it printed; see `Inside`. 124: it did not end in time."""
    with Inside(image, *command, variables=variables, scratch=scratch) as process:
        try:
            return process.wait()
        except subprocess.TimeoutExpired:
            return 124, f"did not end within {RUN_TIMEOUT_S:g} s"
