"""The address file: whole or not there, live or left over, one broker's at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from branchy.brokers.address_file import AddressFile, BrokerRecord
from branchy.errors import BranchyError

RECORD = BrokerRecord.now("127.0.0.1:4711", 1, "embedded")


def test_while_it_is_claimed_it_is_live_and_says_where_the_broker_is(tmp_path: Path):
    file = AddressFile(tmp_path / "new folder" / "broker.json")
    with file.claimed(RECORD):
        assert file.is_live()
        assert file.read() == RECORD
        assert json.loads(file.path.read_text())["brokers"] == "127.0.0.1:4711"
    assert not file.is_live()
    assert list(file.path.parent.iterdir()) == []


def test_a_live_one_is_not_taken_over_and_stays_as_it_is(tmp_path: Path):
    file = AddressFile(tmp_path / "broker.json")
    with file.claimed(RECORD):
        other = AddressFile(file.path)
        with (
            pytest.raises(BranchyError, match=r"running already at 127\.0\.0\.1:4711 \(process 1\)"),
            other.claimed(BrokerRecord.now("127.0.0.1:9", 2, "embedded")),
        ):
            pytest.fail("claimed twice")
        assert file.read() == RECORD
        assert file.is_live()
    assert list(tmp_path.iterdir()) == []


def test_a_left_over_one_is_replaced(tmp_path: Path):
    file = AddressFile(tmp_path / "broker.json")
    file.path.write_text(json.dumps({"brokers": "127.0.0.1:9", "pid": 2, "kind": "embedded", "started": "then"}))
    assert not file.is_live()
    with file.claimed(RECORD):
        assert file.read() == RECORD


def test_where_there_is_none_there_is_nothing_to_read(tmp_path: Path):
    file = AddressFile(tmp_path / "broker.json")
    assert file.read() is None
    assert not file.is_live()


@pytest.mark.parametrize("content", ["", "{}", '{"brokers": "a:1", "pid": "x", "kind": "", "started": ""}', "[]"])
def test_what_is_no_address_file_is_named(tmp_path: Path, content: str):
    path = tmp_path / "broker.json"
    path.write_text(content)
    with pytest.raises(BranchyError, match=r"broker\.json: expected a broker's address file"):
        AddressFile(path).read()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    file = AddressFile(tmp_path / "file" / "broker.json")
    with pytest.raises(BranchyError, match="cannot be written"), file.claimed(RECORD):
        pytest.fail("claimed in a file")


def test_where_the_name_is_taken_by_a_folder_it_cannot_be_written(tmp_path: Path):
    file = AddressFile(tmp_path / "broker.json")
    file.path.mkdir()
    with pytest.raises(BranchyError), file.claimed(RECORD):
        pytest.fail("claimed a folder")
    assert [entry.name for entry in tmp_path.iterdir()] == ["broker.json"]
