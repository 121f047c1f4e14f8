import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_tier import LABELS, FakeTier, toy_bundle

from branchy.cli import main as cli
from branchy.transport.memory import MemoryBroker

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return toy_bundle(tmp_path_factory.mktemp("bundle") / "toy")


@pytest.fixture
def broker(monkeypatch):
    made = MemoryBroker()
    monkeypatch.setattr("branchy.transport.kafka.KafkaLink", lambda settings, name: made.link(name))
    return made


@pytest.fixture
def branchy(monkeypatch, capfd, tmp_path, bundle):
    """Run `branchy device` in an empty directory; returns exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    x = (np.arange(3).repeat(4) % 3).astype(np.uint8).reshape(3, 2, 2)
    arrays = {"x_train": x, "y_train": np.arange(3), "x_test": x, "y_test": np.arange(3)}
    np.savez("toy.npz", **arrays, labels=np.array(LABELS), range=np.array([0, 16]))

    def run(*args: str):
        monkeypatch.setattr(sys, "argv", ["branchy", "device", *args])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capfd.readouterr()
        return code, out, err

    return run


def good(bundle, *more: str) -> list[str]:
    return ["toy.npz", "--bundle", str(bundle.path), "--back", "memory:1", *more]


def test_samples_are_sent_answered_and_summed_up(branchy, broker, bundle):
    with FakeTier(broker) as tier:
        code, out, err = branchy(
            *good(bundle, "--count", "5", "--window", "2", "--deadline-ms", "20000", "--csv", "r.csv")
        )
    assert code == 0, err
    assert [asked.request.budget_ms for asked in tier.asked] == [20000.0] * 5
    assert "answered by edge 100.0 %" in [" ".join(line.split()) for line in out.splitlines()]
    assert "5/5" in err  # the progress bar
    assert len(Path("r.csv").read_text().splitlines()) == 6


def test_what_the_users_own_function_makes_of_an_answer_is_printed(branchy, broker, bundle, tmp_path):
    (tmp_path / "mine.py").write_text("def show(answer):\n    return f'{answer.tier} says {answer.label}'\n")
    with FakeTier(broker):
        code, out, err = branchy(*good(bundle, "--count", "2", "--deadline-ms", "20000", "--output", "mine.py:show"))
    assert code == 0, err
    assert out.splitlines()[:2] == [f"edge says {label}" for label in LABELS[:2]]


def test_a_settings_file_gives_what_no_flag_does(branchy, broker, bundle, tmp_path):
    (tmp_path / "own.toml").write_text(
        f'bundle = "{bundle.path}"\n[back]\nbrokers = "memory:1"\n[device]\ndeadline_ms = 1\ngrace_ms = 0\n'
    )
    code, _, err = branchy("toy.npz", "--config", "own.toml")
    assert code == 1
    assert "branchy: 3 of 3 requests got no label: 3 x no answer within 0.001 s\n" in err


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["--rate", "5", "--window", "2"], 2, "expected a window or a rate, got both"),
        (["--window", "0"], 2, "window: expected at least 1 request in flight, got 0"),
        (["--count", "0"], 2, "count: expected at least 1 request, got 0"),
        (["--tier", "moon"], 2, "no stage 'moon' in this bundle; it has edge, cloud, full"),
        (["--tier", "cloud"], 2, "tier cloud takes what edge sends up, not samples"),
        (["--csv", "missing/r.csv"], 2, "cannot write results to missing/r.csv: No such file or directory"),
        (["--deadline-ms", "-1"], 2, "deadline_ms"),
        (["--bundle", "none"], 1, "bundle none: nothing is there"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_sent(branchy, broker, bundle, more, code, message):
    with FakeTier(broker) as tier:
        got, out, err = branchy(*good(bundle, *more))
    assert got == code
    assert out == ""
    (line,) = err.splitlines()
    assert line.startswith("branchy: ")
    assert message in line
    assert tier.asked == []


def test_a_data_set_that_is_not_there_is_wrong_use(branchy, broker, bundle):
    code, _, err = branchy("nowhere", *good(bundle)[1:])
    assert code == 2
    assert err.startswith("branchy: no data set 'nowhere': expected a folder")


def test_a_broker_that_is_not_there_is_a_failure_in_one_line(branchy, bundle):
    code, _, err = branchy(*good(bundle, "--back", "127.0.0.1:1", "--connect-timeout-s", "0.2"))
    assert code == 1
    assert "127.0.0.1:1" in err.splitlines()[-1]
    assert err.splitlines()[-1].startswith("branchy: ")
    assert "Traceback" not in err


def test_a_device_loads_no_training_and_no_table_libraries(tmp_path, bundle):
    script = (
        "import pathlib, sys\n"
        "from fake_tier import FakeTier, sample, settings\n"
        "from branchy import Bundle, Device\n"
        "from branchy.transport.memory import MemoryBroker\n"
        "import branchy.runner.sending, branchy.cli.device, branchy.transport.kafka\n"
        "broker = MemoryBroker()\n"
        "bundle = Bundle.load(pathlib.Path(sys.argv[1]))\n"
        "with FakeTier(broker), Device(bundle, settings(bundle), broker.link('back')) as device:\n"
        "    assert device.ask(sample(1)).label == 'one'\n"
        "heavy = {'tensorflow', 'keras', 'pandas', 'matplotlib', 'kubernetes', 'sklearn', 'ai_edge_litert'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", script, str(bundle.path)]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(SUPPORT)}, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
