"""TensorBoard events: every update's training scalars and every validation's figures, by env steps.

One file, written here and not by tensorboardX's writer: that one hands events to a thread, loses what is in its queue
when the process is killed, and hangs on a full disk. Its message classes and its checksum are used.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

# tensorboardX imports torch where it is installed, which was 1.4 of the 3.6 s in which `jaxppo train` begins: it is
# told that there is none.
_hidden = {"torch": None} if "torch" not in sys.modules else {}
sys.modules.update(_hidden)  # type: ignore[arg-type]
try:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.record_writer import masked_crc32c
finally:
    for _name in _hidden:
        del sys.modules[_name]

from jaxppo.store.files import Growing  # noqa: E402

FOLDER = "tensorboard"
FILE = "events.out.tfevents.0.jaxppo"  # TensorBoard knows event files by the second and third word
_LARGEST = 2**24  # bytes of a record; ours have some thousand


def _record(event: Event) -> bytes:
    """An event framed as a TFRecord: length (8 bytes), its checksum (4), the event, its checksum (4)."""
    data = event.SerializeToString()
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", masked_crc32c(length)) + data + struct.pack("<I", masked_crc32c(data))


def _records(data: bytes) -> Iterator[tuple[int, Event]]:
    """End and event of every record of a file, up to the first that is cut off or damaged."""
    at = 0
    while at + 12 <= len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        end = at + 16 + length
        if length > _LARGEST or end > len(data):
            return
        body, (checksum,) = data[at + 12 : end - 4], struct.unpack_from("<I", data, end - 4)
        if masked_crc32c(body) != checksum:
            return
        yield end, Event.FromString(body)
        at = end


def read_events(data: bytes) -> list[Event]:
    """The events of a file, up to the first that is cut off or damaged."""
    return [event for _, event in _records(data)]


def segment_scalars(
    update: int, length: int, rows: Mapping[str, np.ndarray], row: Mapping[str, Any], batch_steps: int
) -> Iterator[tuple[int, dict[str, float]]]:
    """Env steps and scalars of a segment: of each update `train/NAME`, of its validation `validation/NAME`.

    Args:
      update: done at its end.
      length: of the segment in updates, which are the first of `rows`.
      rows: training scalars by name, (at least length,) each.
      row: of metrics.csv; what is not finite of its validation is left out.
      batch_steps: env steps of an update.
    """
    for i in range(length):
        yield (update - length + i + 1) * batch_steps, {f"train/{name}": float(x[i]) for name, x in rows.items()}
    validated = {k[4:]: float(v) for k, v in row.items() if k.startswith("val_") and np.isfinite(v)}
    yield update * batch_steps, {f"validation/{k}": v for k, v in validated.items()}


class EventWriter:
    """Writes the event file under `tensorboard/`."""

    def __init__(self, run_dir: Path):
        self._path = run_dir / FOLDER / FILE
        self._file = Growing(self._path)

    def segment(
        self, update: int, length: int, rows: Mapping[str, np.ndarray], row: Mapping[str, Any], batch_steps: int
    ) -> None:
        """One segment: `rows` has its `length` updates in front, `row` its validation.

        Raises:
          OSError: it could not be written; it is written with the next segment, or by `retry`.
        """
        found = [] if self._file.size else [_record(Event(wall_time=time.time(), file_version="brain.Event:2"))]
        found += [_scalars(v, step) for step, v in segment_scalars(update, length, rows, row, batch_steps)]
        self._path.parent.mkdir(exist_ok=True)
        self._file.append(b"".join(found))

    def retry(self) -> None:
        """Write what could not be written before; `OSError` as above."""
        self._file.append(b"")

    def keep_until(self, step: int) -> int | None:
        """Drop what was written of later env steps, which a resumed run writes again, and what was cut off.

        Returns:
          The step of the last event that is left.
        """
        if not self._path.exists():
            return None
        end, last = 0, None
        for after, event in _records(self._path.read_bytes()):
            if event.step > step:
                break
            end, last = after, event.step
        self._file.cut(end)
        return last


def _scalars(values: Mapping[str, float], step: int) -> bytes:
    """One event with a scalar for every name."""
    summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
    return _record(Event(wall_time=time.time(), step=step, summary=summary))
