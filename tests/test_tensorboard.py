"""The event file: TensorBoard's own framing, and every scalar once, however often a run is cut off."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from jaxppo.store.tensorboard import FILE, FOLDER, EventWriter, read_events


def rows(*entropy: float) -> dict[str, np.ndarray]:
    return {"entropy": np.asarray([*entropy, 0.0], np.float32)}  # a segment's array is longer than the last segment


def written(run: Path) -> list[tuple[str, int, float]]:
    data = (run / FOLDER / FILE).read_bytes()
    return [(v.tag, e.step, v.simple_value) for e in read_events(data) for v in e.summary.value]


@pytest.fixture
def run(tmp_path) -> Path:
    """Updates 0, 2 and 3 validated; 10 env steps an update."""
    writer = EventWriter(tmp_path)
    writer.segment(0, 0, rows(), {"update": 0, "val_sharpe": 0.5}, 10)
    writer.segment(2, 2, rows(1.0, 0.75), {"update": 2, "val_sharpe": float("nan"), "val_trades": 3}, 10)
    writer.segment(3, 1, rows(0.5), {"update": 3, "val_sharpe": float("inf"), "val_trades": 4}, 10)
    return tmp_path


WHOLE = [
    ("validation/sharpe", 0, 0.5),
    ("train/entropy", 10, 1.0),
    ("train/entropy", 20, 0.75),
    ("validation/trades", 20, 3.0),
    ("train/entropy", 30, 0.5),
    ("validation/trades", 30, 4.0),
]


def test_every_update_and_every_validation(run):
    assert written(run) == WHOLE
    first = read_events((run / FOLDER / FILE).read_bytes())[0]
    assert first.file_version == "brain.Event:2"


def test_the_framing_is_that_of_tfrecords(run):
    # CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720, B.4), masked ((x >> 15) | (x << 17)) + a282ead8 as in TensorFlow.
    from tensorboardX.record_writer import masked_crc32c

    x = 0x8A9136AA
    assert masked_crc32c(bytes(32)) == (((x >> 15) | (x << 17)) + 0xA282EAD8) & 0xFFFFFFFF
    data = (run / FOLDER / FILE).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    assert struct.unpack_from("<I", data, 8) == (masked_crc32c(data[:8]),)
    assert struct.unpack_from("<I", data, 12 + length) == (masked_crc32c(data[12 : 12 + length]),)


@pytest.mark.parametrize("junk", [b"", b"\x07", b"\x10\0\0\0\0\0\0\0abcd", bytes(40), b"\xff" * 40])
@pytest.mark.parametrize("cut", [0, 1, 20])
def test_what_was_cut_off_is_written_once_more_and_nothing_twice(run, junk, cut):
    path = run / FOLDER / FILE
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - cut] + junk)
    writer = EventWriter(run)
    assert writer.keep_until(20) == 20
    assert written(run) == WHOLE[:4]
    writer.segment(3, 1, rows(0.5), {"update": 3, "val_sharpe": float("inf"), "val_trades": 4}, 10)
    assert written(run) == WHOLE


def test_a_flipped_bit_ends_what_is_believed(run):
    path = run / FOLDER / FILE
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    assert EventWriter(run).keep_until(30) == 30  # of the update; the validation's event was the damaged one
    assert written(run) == WHOLE[:-1]


def test_a_run_that_begins_again_writes_a_new_file(run):
    writer = EventWriter(run)
    assert writer.keep_until(-1) is None
    assert written(run) == []
    writer.segment(0, 0, rows(), {"update": 0, "val_sharpe": 0.5}, 10)
    assert written(run) == WHOLE[:1]
    assert read_events((run / FOLDER / FILE).read_bytes())[0].file_version == "brain.Event:2"


def test_steps_pass_32_bits(tmp_path):
    writer = EventWriter(tmp_path)
    writer.segment(4096, 1, rows(1.0), {"update": 4096, "val_sharpe": 1.0}, 2**20)
    assert written(tmp_path)[-1] == ("validation/sharpe", 2**32, 1.0)
