"""Registries: what a configuration may name, and what a user's own file may add to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from jaxppo.errors import ConfigError, nearest


class Named(Protocol):
    """A record of a registry."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


class Registry(Mapping[str, T]):
    """Records of one kind by name, in the order in which they were registered.

    Example:
      >>> from dataclasses import dataclass
      >>> @dataclass(frozen=True)
      ... class Colour:
      ...     name: str
      >>> colours = Registry("colour", [Colour("red"), Colour("blue")])
      >>> colours["red"]
      Colour(name='red')
      >>> colours.find("bleu", "paint")
      Traceback (most recent call last):
      jaxppo.errors.ConfigError: paint: unknown colour 'bleu'; did you mean 'blue'? valid names are 'blue', 'red'
    """

    def __init__(self, kind: str, records: list[T] | None = None, of_policy: bool = True):
        self.kind = kind  # as a message calls one of them
        self.of_policy = of_policy  # a policy that was trained with one of a plugin's records needs the plugin again
        self._records: dict[str, T] = {}
        for record in records or []:
            self.add(record)

    def add(self, record: T) -> T:
        """Register `record` under its own name.

        Raises:
          ConfigError: the name is taken, or is not one that a flag or a file could give.
        """
        name = record.name
        if not name.isidentifier():
            raise ConfigError(f"{self.kind} {name!r}: a name has letters, digits and underscores only")
        if name in self._records:
            raise ConfigError(f"{self.kind} {name!r}: is registered already; choose another name")
        self._records[name] = record
        return record

    def remove(self, name: str) -> None:
        """Forget a record; tests and notebooks that register one again need it."""
        del self._records[name]

    def find(self, name: str, field: str) -> T:
        """The record of a name given for `field`; `ConfigError` with the nearest names where there is none."""
        if name not in self._records:
            raise ConfigError(f"{field}: unknown {self.kind} {name!r}; {nearest(name, self._records)}")
        return self._records[name]

    def __getitem__(self, name: str) -> T:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)
