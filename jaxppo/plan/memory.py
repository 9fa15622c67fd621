"""Memory of a program by class."""

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
