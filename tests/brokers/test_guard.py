from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from branchy.brokers.address_file import AddressFile

STARTER = """
import subprocess, sys
from pathlib import Path
from branchy.brokers.address_file import AddressFile, BrokerRecord
from branchy.brokers.guard import Guard
data, last = Path(sys.argv[1]), sys.argv[2]
guard = Guard(data)
with AddressFile(data / "node-1" / "node.json").reserved() as reservation:
    node = subprocess.Popen(["sleep", "60"], pass_fds=(reservation.descriptor,), start_new_session=True)
    reservation.publish(BrokerRecord.now("127.0.0.1:1", node.pid, "node"))
print(node.pid, flush=True)
if last == "release":
    guard.release()
elif last == "close":
    guard.close()
sys.stdin.read()
"""


@pytest.mark.parametrize("last", ["release", "close", "killed"])
def test_the_nodes_end_with_their_starter_unless_they_were_released(tmp_path, last):
    file = AddressFile(tmp_path / "node-1" / "node.json")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path), last], **pipes) as starter:
        node = int(starter.stdout.readline())
        if last == "killed":
            starter.kill()
        starter.stdin.close()
        if last == "release":
            starter.wait(30)
            assert file.is_live()
            os.kill(node, signal.SIGKILL)
        starter.stdout.read()  # ends when starter, guard and node have all ended
    assert not file.is_live()
    assert file.path.exists() == (last == "release")
