"""Memory of a program over its size, envs or members: a straight line, and how far up it a device reaches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """bytes = base + slope * size."""

    base: float
    slope: float

    def at(self, size: int) -> float:
        return self.base + self.slope * size

    def reach(self, limit: float, step: int) -> int:
        """The largest multiple of `step` whose bytes are within `limit`; 0 where there is none."""
        if self.slope <= 0:
            raise ValueError(f"memory does not grow with the size (slope {self.slope:g} bytes)")
        return max(0, int((limit - self.base) / self.slope) // step * step)


def line_through(one: tuple[int, int], two: tuple[int, int]) -> Line:
    """The line through two (size, bytes)."""
    (x1, y1), (x2, y2) = one, two
    slope = (y2 - y1) / (x2 - x1)
    return Line(y1 - slope * x1, slope)
