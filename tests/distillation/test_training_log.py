"""Logs of a run whose disk is full for a while."""

import logging

from tensorboardX.proto.event_pb2 import Event

from flax_distil.distillation.monitoring.reporters import tensorboard
from flax_distil.distillation.monitoring.training_log import TrainingLog, read_metrics


def scalars(folder):
    """Return step and value of each scalar: records are length, checksum, content, checksum."""
    (path,) = (folder / "tensorboard").iterdir()
    content, first, found = path.read_bytes(), 0, []
    while first < len(content):
        size = int.from_bytes(content[first : first + 8], "little")
        event = Event.FromString(content[first + 12 : first + 12 + size])
        found += [(event.step, value.simple_value) for value in event.summary.value]
        first += size + 16
    return found


def test_lines_that_a_full_disk_refused_are_written_when_there_is_room(
    tmp_path, limited_files, monkeypatch, caplog
):
    monkeypatch.setattr(tensorboard, "_FLUSH_SECONDS", -1.0)
    steps = list(range(1, 31))
    with TrainingLog(tmp_path, max_steps=30) as logs:
        logs.write(1, {"loss": 1.0})
        with limited_files(20):
            for step in steps[1:-1]:
                logs.write(step, {"loss": float(step)})
        logs.write(30, {"loss": 30.0})
    assert [line["step"] for line in read_metrics(tmp_path)] == steps
    assert scalars(tmp_path)[-1] == (30, 30.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2  # one for the file of metrics, one for TensorBoard's
    assert all("File too large" in warning for warning in warnings)
