"""What a checkpoint says of itself, and which checkpoints of a folder can be believed."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jaxppo.config.schema import Config, from_dict, to_dict
from jaxppo.env.actions import ActionTable
from jaxppo.errors import CheckpointError, ConfigError
from jaxppo.market.dataset import Market
from jaxppo.plugins import Plugin, loaded_plugins
from jaxppo.store.checksums import damage
from jaxppo.store.json import as_figures, read_json

FORMAT = 4
INFO = "info.json"
_FLOATS = ("fitness", "best_fitness", "elapsed_seconds")


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself."""

    config: Config
    feature_names: tuple[str, ...]
    feature_hash: str
    data_hash: str
    actions: ActionTable
    update: int
    fitness: float  # what validations are ranked by, whatever that is: see `jaxppo.play.best.ranked_score`
    final: bool
    best_fitness: float  # of the run so far
    best_update: int
    elapsed_seconds: float  # of training so far
    plugins: tuple[Plugin, ...] = field(default_factory=loaded_plugins)  # that it was trained with

    def to_json(self) -> dict[str, Any]:
        raw = {k: v for k, v in asdict(self).items() if k not in ("config", "actions")}
        raw["feature_names"] = list(self.feature_names)
        raw["plugins"] = [p._asdict() for p in self.plugins]
        actions = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.actions).items()}
        return {"format": FORMAT, **raw, "config": to_dict(self.config), "actions": actions}

    @staticmethod
    def from_json(raw: Any, where: str) -> CheckpointInfo:
        if not isinstance(raw, dict) or raw.get("format") != FORMAT:
            found = raw.get("format") if isinstance(raw, dict) else None
            earlier = isinstance(found, int) and found < FORMAT
            older = ", of an earlier version: train again, or use that version" if earlier else ""
            raise CheckpointError(f"{where}: not a jaxppo checkpoint of format {FORMAT} (found {found}{older})")
        fields = {k: v for k, v in raw.items() if k != "format"}
        wanted = {f.name for f in dataclasses.fields(CheckpointInfo)}
        for wrong, names in (("lacks", wanted - fields.keys()), ("has an unknown", fields.keys() - wanted)):
            if names:
                raise CheckpointError(f"{where}: {INFO} {wrong} {min(names)!r}, so it is not what was saved")
        try:
            fields["config"] = from_dict(fields["config"], INFO)
            actions: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["actions"].items()}
            fields["actions"] = ActionTable(**actions)
            fields["feature_names"] = tuple(map(str, fields["feature_names"]))
            fields["plugins"] = tuple(Plugin(**p) for p in fields["plugins"])
            fields |= {name: float(as_figures(fields[name])) for name in _FLOATS}
            fields |= {name: int(fields[name]) for name in ("update", "best_update")}
        except (ConfigError, TypeError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"{where}: {INFO} is not what was saved ({error})") from error
        return CheckpointInfo(**fields)


def final_info(config: Config, market: Market, actions: ActionTable, update: int, fitness: float) -> CheckpointInfo:
    """What a checkpoint says of a policy that is handed over without the run that it is of.

    Args:
      config: that it was trained with.
      market: on which.
      actions: that it has.
      update: after which it was taken.
      fitness: that it is kept by.
    """
    return CheckpointInfo(
        config=config,
        feature_names=market.feature_names,
        feature_hash=market.feature_hash,
        data_hash=market.data_hash,
        actions=actions,
        update=update,
        fitness=fitness,
        final=True,
        best_fitness=fitness,
        best_update=update,
        elapsed_seconds=0.0,
    )


def read_info(checkpoint: Path) -> CheckpointInfo:
    """What a checkpoint says of itself; `CheckpointError` where it cannot be read."""
    try:
        raw = read_json(checkpoint / INFO)
    except (OSError, ValueError):
        raw = None
    return CheckpointInfo.from_json(raw, str(checkpoint))


class Survey(NamedTuple):
    """The checkpoints of a folder, by update."""

    sound: dict[int, CheckpointInfo]
    damaged: dict[int, str]  # what is wrong with it


def survey(folder: Path) -> Survey:
    """Look at every checkpoint of `folder`, checksums included."""
    found = Survey({}, {})
    for step in sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()):
        wrong = damage(folder / str(step))
        if wrong is not None:
            found.damaged[step] = wrong
            continue
        try:
            found.sound[step] = read_info(folder / str(step))
        except CheckpointError as error:
            found.damaged[step] = str(error).removeprefix(f"{folder / str(step)}: ")
    return found
