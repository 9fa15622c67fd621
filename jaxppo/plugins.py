"""A user's own file that adds to the registries. Only a file that the user names is ever executed.

Manifest and checkpoint keep a plugin's name and SHA-256: a policy that was trained with one is not restored without it.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from jaxppo.errors import CheckpointError, ConfigError
from jaxppo.registry import Registry

_REGISTRIES = (
    ("jaxppo.market.features", "FeatureGroup", "FEATURE_GROUPS"),
    ("jaxppo.market.asset_classes", "AssetClass", "ASSET_CLASSES"),
    ("jaxppo.env.actions", "ActionKind", "ACTION_TABLES"),
    ("jaxppo.agent.encoders", "EncoderKind", "ENCODERS"),
    ("jaxppo.env.rewards", "RewardComponent", "REWARD_COMPONENTS"),
    ("jaxppo.config.rewards", "RewardPreset", "REWARD_PRESETS"),
    ("jaxppo.play.metrics", "Metric", "METRICS"),
    ("jaxppo.play.rules", "Rule", "RULES"),
    ("jaxppo.store.trackers", "Tracker", "TRACKERS"),
)
"""Module, type of the records and registry of all that can be added."""
_LARGEST = 2**20  # bytes of a plugin


class Plugin(NamedTuple):
    """A file that was executed."""

    name: str  # of the file
    sha256: str


_loaded: dict[Plugin, list[tuple[Registry[Any], str]]] = {}
"""What each plugin of this process has registered."""


def register(record: Any) -> Any:
    """Put a record into its registry: features, encoder, actions, asset class, reward, metric, rule or tracker.

    Returns:
      The record.

    Raises:
      ConfigError: its name is taken, or nothing of its type can be registered.

    Example:
      >>> import jaxppo
      >>> from jaxppo.market.asset_classes import ASSET_CLASSES, AssetClass
      >>> bond = AssetClass("bond", "German government bonds", 0.0002, True, 252.0, "Europe/Berlin", "exchange")
      >>> record = jaxppo.register(bond)
      >>> ASSET_CLASSES["bond"].trading_days
      252.0
      >>> ASSET_CLASSES.remove("bond")
    """
    kinds = []
    for module, kind, registry in _REGISTRIES:
        home = importlib.import_module(module)
        if isinstance(record, getattr(home, kind)):
            added = getattr(home, registry).add(record)
            for records in _being_loaded:
                records.append((getattr(home, registry), added.name))
            return added
        kinds.append(kind)
    raise ConfigError(f"register: a {type(record).__name__} cannot be registered; give one of {', '.join(kinds)}")


_being_loaded: list[list[tuple[Registry[Any], str]]] = []


def loaded_plugins() -> tuple[Plugin, ...]:
    """The plugins that a policy of this process is trained with, in the order in which they were loaded.

    Where all that one registers has nothing to do with a policy, such as a tracker, it is not one of them.
    """
    return tuple(p for p, records in _loaded.items() if not records or any(r.of_policy for r, _ in records))


def load_plugin(path: str | Path) -> Plugin:
    """Execute a plugin, once a process.

    Raises:
      ConfigError: it is no Python file, cannot be read, raises, or was loaded before with other contents.
    """
    path = Path(path)
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"plugin: {path} is no Python file; give a .py file that registers something")
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"plugin: {path} cannot be read ({error.strerror})") from error
    if len(source) > _LARGEST:
        raise ConfigError(f"plugin: {path} has {len(source):,} bytes, more than the {_LARGEST:,} that are read")
    plugin = Plugin(path.name, hashlib.sha256(source).hexdigest())
    if plugin in _loaded:
        return plugin
    if plugin.name in {p.name for p in _loaded}:
        raise ConfigError(f"plugin: {path.name} was loaded before with other contents; give it another name")
    module = ModuleType(f"jaxppo_plugin_{path.stem}")
    module.__file__ = str(path)
    records: list[tuple[Registry[Any], str]] = []
    _being_loaded.append(records)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:
        _forget(records)
        raise ConfigError(f"plugin: {path}{_line(error, path)}: {_said(error)}") from error
    finally:
        _being_loaded.pop()
    _loaded[plugin] = records
    return plugin


def unload_plugins() -> None:
    """Take what plugins have registered out of the registries again, such as to load a changed file in a notebook."""
    for records in _loaded.values():
        _forget(records)
    _loaded.clear()


def _forget(records: Iterable[tuple[Registry[Any], str]]) -> None:
    for registry, name in records:
        registry.remove(name)


def _line(error: Exception, path: Path) -> str:
    """Where in the file an error came from."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f", line {lines[-1]}" if lines else ""


def _said(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else ""
    return text if isinstance(error, ConfigError) else f"{type(error).__name__}: {text}"


def require_plugins(wanted: Sequence[Plugin], where: str) -> None:
    """`CheckpointError` unless the plugins that a policy was trained with are loaded, to the byte."""
    here = {p.name: p.sha256 for p in _loaded}
    for name, sha256 in wanted:
        if name not in here:
            raise CheckpointError(
                f"{where}: the policy was trained with the plugin {name} (SHA-256 {sha256[:12]}); give it with --plugin"
            )
        if here[name] != sha256:
            raise CheckpointError(
                f"{where}: the policy was trained with the plugin {name} of SHA-256 {sha256[:12]}, and the one given"
                f" has {here[name][:12]}; give the file that it was trained with"
            )
