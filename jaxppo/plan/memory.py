"""Memory of a program over its env count: a straight line, and how far up it a GPU reaches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Memory:
    """Bytes of a compiled program by class, as XLA lays them out."""

    state: int  # parameters, optimizer, paths, accounts
    tape: int
    evaluation: int
    arguments: int  # all of them, padded; those that the program never reads are left out
    outputs: int
    aliased: int  # of the outputs: written over a donated argument
    temporaries: int

    @property
    def total(self) -> int:
        return self.arguments + self.outputs - self.aliased + self.temporaries


@dataclass(frozen=True)
class Line:
    """bytes = base + slope * envs."""

    base: float
    slope: float

    def at(self, n_envs: int) -> float:
        return self.base + self.slope * n_envs

    def reach(self, limit: float, step: int) -> int:
        """The largest multiple of `step` whose bytes are within `limit`; 0 where there is none."""
        if self.slope <= 0:
            raise ValueError(f"memory does not grow with the envs (slope {self.slope:g} bytes)")
        return max(0, int((limit - self.base) / self.slope) // step * step)


def line_through(one: tuple[int, int], two: tuple[int, int]) -> Line:
    """The line through two (envs, bytes)."""
    (x1, y1), (x2, y2) = one, two
    slope = (y2 - y1) / (x2 - x1)
    return Line(y1 - slope * x1, slope)
