from __future__ import annotations

from pathlib import Path

import pytest
from full_disk import files_of_at_most

from branchy.models.backend import tf
from branchy.models.tensorboard import EventLog


def test_each_epoch_is_a_scalar_a_name_that_tensorboard_can_read(tmp_path: Path) -> None:
    from tensorflow.core.util import event_pb2

    with EventLog(tmp_path) as log:
        log.write({"loss": [0.5], "edge_accuracy": [0.1]})
        log.write({"loss": [0.5, 0.25], "edge_accuracy": [0.1, 0.2]})
    records = [r for path in tmp_path.iterdir() for r in tf.data.TFRecordDataset(str(path)).as_numpy_iterator()]
    found = {}
    for event in map(event_pb2.Event.FromString, records):
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    assert found == {
        ("loss", 1): 0.5,
        ("loss", 2): 0.25,
        ("edge_accuracy", 1): pytest.approx(0.1),
        ("edge_accuracy", 2): pytest.approx(0.2),
    }


def test_a_disk_that_is_full_is_an_error_of_the_system_at_opening_and_at_writing(tmp_path: Path) -> None:
    with files_of_at_most(10), pytest.raises(OSError, match="File too large"):
        EventLog(tmp_path / "opening")
    with files_of_at_most(200), EventLog(tmp_path / "writing") as log, pytest.raises(OSError, match="File too large"):
        log.write({"loss": [0.5], "edge_accuracy": [0.1]})
