"""Curves in Unicode blocks: one line of eighths, or several lines of halves with the spread as a shade. Pure."""

from __future__ import annotations

import math

import numpy as np

_EIGHTHS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_SHADE, _UPPER, _LOWER, _BAR = "\u2591", "\u2580", "\u2584", "\u2588"


def in_cells(x: np.ndarray, y: np.ndarray, width: int, end: float) -> np.ndarray:
    """The curve as a value a cell (width,), NaN beyond its last point.

    Args:
      x: (U,) increasing, from 0.
      y: (U,); a point that is NaN is as none.
      width: cells, over which 0 to `end` is spread.
      end: the last x there will be; that of the curve where it is beyond.

    Example:
      >>> in_cells(np.array([0.0, 2.0]), np.array([1.0, 3.0]), 4, 4.0)
      array([ 1.,  1.,  3., nan])
    """
    found = np.full(width, np.nan)
    known = np.isfinite(y)
    if not known.any():
        return found
    x, y = x[known], y[known]
    at = np.minimum((x / max(end, x[-1], 1.0) * (width - 1)).round().astype(int), width - 1)
    for cell in range(int(at[0]), int(at[-1]) + 1):
        found[cell] = y[int(np.searchsorted(at, cell, side="right")) - 1]  # the last point up to it
    return found


def sparkline(x: np.ndarray, y: np.ndarray, width: int, end: float) -> str:
    """A curve in one line of `width` characters; see `in_cells`."""
    cells = in_cells(x, y, width, end)
    if np.isnan(cells).all():
        return " " * width
    low, high = np.nanmin(cells), np.nanmax(cells)
    spread = high - low
    steps = np.where(np.isnan(cells), 0.0, cells - low) / spread * 7.0 if spread > 0 else np.full(width, 3.0)
    return "".join(" " if math.isnan(c) else _EIGHTHS[round(s)] for c, s in zip(cells, steps, strict=True))


def plot(
    x: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray, size: tuple[int, int], end: float
) -> tuple[list[str], float, float]:
    """A curve with its spread in several lines.

    Args:
      x, mean, low, high: (U,).
      size: characters of a line, and lines.
      end: as of `in_cells`.

    Returns:
      The lines from the top, and the values at the bottom and the top; NaN where there is no value.
    """
    width, height = size
    middle, bottom, top = (in_cells(x, of, width, end) for of in (mean, low, high))
    if np.isnan(middle).all():
        return [" " * width] * height, math.nan, math.nan
    least, most = float(np.nanmin(bottom)), float(np.nanmax(top))
    halves = 2 * height - 1

    def level(value: float) -> int:
        return round((value - least) / (most - least) * halves) if most > least else height

    rows = [[" "] * width for _ in range(height)]
    for cell in range(width):
        if math.isnan(middle[cell]):
            continue
        for half in range(level(bottom[cell]), level(top[cell]) + 1):
            rows[height - 1 - half // 2][cell] = _SHADE
        half = level(middle[cell])
        rows[height - 1 - half // 2][cell] = _UPPER if half % 2 else _LOWER
    return ["".join(row) for row in rows], least, most


def bar(share: float, width: int) -> str:
    """A progress bar of `width` characters; empty for NaN."""
    full = 0 if math.isnan(share) else round(min(max(share, 0.0), 1.0) * width)
    return _BAR * full + _SHADE * (width - full)
