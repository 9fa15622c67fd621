"""Fewer points that draw the same line."""

from __future__ import annotations

import numpy as np

MAX_POINTS = 4000  # more than two a pixel column of a picture cannot be seen


def decimate(y: np.ndarray, limit: int = MAX_POINTS) -> np.ndarray:
    """Indices (n,), n <= `limit`, of the points of `y` (T,) that draw the same line: first, last, and the smallest
    and largest of each of equally wide buckets. NaN is never chosen for an extreme, except in an all-NaN bucket.
    """
    if len(y) <= limit:
        return np.arange(len(y))
    buckets = (limit - 2) // 2
    edges = np.linspace(0, len(y), buckets + 1).astype(np.int64)
    width = int(np.diff(edges).max())
    # A row a bucket; a shorter bucket repeats its last point, which changes neither extreme.
    index = np.minimum(edges[:-1, None] + np.arange(width), edges[1:, None] - 1)  # (buckets, width)
    bucket = y[index]
    low = np.where(np.isnan(bucket), np.inf, bucket).argmin(axis=1)
    high = np.where(np.isnan(bucket), -np.inf, bucket).argmax(axis=1)
    rows = np.arange(buckets)
    return np.unique(np.concatenate([[0], index[rows, low], index[rows, high], [len(y) - 1]]))
