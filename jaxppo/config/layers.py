"""Presets, device tiers, a user's own file and the command line, layered: every value knows where it came from.

Order, later wins: the defaults of the schema, the preset's YAML file, the device tier (preset `auto` only), a file of
one's own (`--config`), the reward preset and the action table where none of these has decided, the command line. A
preset sets budgets and a device tier sets sizes and what goes with them, so the two never touch the same field.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from jaxppo.config import measured
from jaxppo.config.checks import check_config, require_validations
from jaxppo.config.rewards import REWARD_PRESETS
from jaxppo.config.schema import FIELD_GROUP, GROUPS, Config, from_dict, group_from_dict
from jaxppo.errors import ConfigError, nearest

MAX_YAML = 262_144
"""Characters of a configuration; ours have under 3,000."""
_EITHER = (
    ("n_updates", "env_steps"),
    ("n_updates", "passes"),
    ("env_steps", "passes"),
    ("passes", "env_steps"),
    ("validate_every", "n_validations"),
)
"""Fields that say the same: where the first is given, a preset or file does not say it by the second."""
_KEEPS = {"gae_lambda": 0.5}
ACTIONS_BRING: Mapping[str, Mapping[str, Any]] = {
    "hold_buy_sell": _KEEPS,
    "sized": {**_KEEPS, "entropy_anneal": 0.4},
    "sized_close": {**_KEEPS, "entropy_anneal": 0.4},
}
"""Fields that an action table brings with it, as a reward preset does: those of tables that can keep a position.

There, waiting for a bar costs little, and several actions do the same or nearly so. Their probabilities stay soft and
apart, `hold` has the largest of them, and a policy that acts by its mode trades too late, where one that draws its
actions earns. On `reluctant` of `benchmarks/learning.py` lambda .5 raised the share of the oracle from 87 to 95 % (mean
of five seeds of `hold_buy_sell`), and with less entropy from 68 to 87 % (`sized_close`).
"""
CHOSEN = "chosen:"
"""What the source of a value begins with that `auto` chose for the device; its reason follows."""
PRESETS = ("quick_test", "standard", "production", "extended", "auto", "trend")


@dataclass(frozen=True)
class DeviceInfo:
    """What the program will run on."""

    platform: str  # "cpu", "gpu" or "tpu"
    kind: str
    count: int
    memory_bytes: int | None  # of one device; None where it does not say
    capability: tuple[int, int] | None = None  # CUDA compute capability; None for what has none


@dataclass(frozen=True)
class DeviceTier:
    """Sizes for a device."""

    sizes: dict[str, Any]
    reasons: dict[str, str]  # of each of the sizes


@dataclass(frozen=True)
class Resolved:
    """A configuration and the source of each value that is not the schema's default."""

    config: Config
    sources: Mapping[str, str]  # field -> source


BFLOAT16_CAPABILITY = (8, 0)
"""CUDA compute capability (Ampere) from which on tensor cores know bfloat16."""
ROOMY = 2**30
"""Bytes of an accelerator's memory from which on the sizes that were measured surely fit."""


def device_tier(device: DeviceInfo) -> DeviceTier:
    """The sizes that suit a device, and why: those that were measured (`jaxppo.config.measured`).

    An accelerator's memory decides nothing down to 1 GiB, as the sizes that were measured need 298 MiB with 16
    minibatches, and with 4 a CPU's program in float32 569 MiB: a card of which a neighbour has a part reports less, and
    is given the same sizes.
    """
    return _cpu_tier() if device.platform == "cpu" else _accelerator_tier(device)


def _cpu_tier() -> DeviceTier:
    envs, dtypes, split = measured.CPU_BY_ENVS, measured.CPU_BY_DTYPE, measured.CPU_BY_MINIBATCHES
    few, many, slow, fast = min(split), max(split), min(split.values()), max(split.values())
    own, more, machine = envs[2_048], envs[16_384], measured.CPU_TITLE
    reasons = {
        "n_envs": f"{own:,} steps/s on {machine}; 16,384 make {more:,}, in an eighth of the updates",
        "n_steps": "3 bars are encoded for each that is traded, with a window of 64; with 8 steps it would be 9",
        "minibatches": f"more are hardly faster: {few} to {many} make {slow:,} to {fast:,} steps/s there",
        "compute_dtype": f"{dtypes['float32']:,} steps/s against {dtypes['bfloat16']:,} in bfloat16 on {machine}",
    }
    return DeviceTier({"n_envs": 2_048, "n_steps": 32, "minibatches": 4, "compute_dtype": "float32"}, reasons)


def _accelerator_tier(device: DeviceInfo) -> DeviceTier:
    base, half = measured.FLOAT32, measured.BFLOAT16
    few, long = measured.FOUR_MINIBATCHES.seconds, measured.LONG_ROLLOUT.seconds
    run = f"for 500M steps on {measured.CARD_TITLE}"
    # A quarter of production's gradient steps, each of four times the samples and, as usual, of a higher learning rate:
    # at production's own the Sharpe ratio of walk-forwards fell from 1.74 to 1.66, at twice that to 1.72.
    sizes: dict[str, Any] = {"n_envs": 131_072, "n_steps": 8, "minibatches": 4, "compute_dtype": "bfloat16"}
    sizes["learning_rate"] = 6e-4
    reasons = {
        "n_envs": f"the size that was measured, which needs {measured.PEAK_MIB} MiB with 16 minibatches",
        "n_steps": f"32, with 16 minibatches, took {long} s against {base.seconds} s in float32 {run}, and learnt less:"
        f" Sharpe {measured.SHARPE_LONG} in walk-forwards of 512 envs",
        "minibatches": f"{few} s against {half.seconds} s with 16 {run}; Sharpe {measured.SHARPE_FOUR_FASTER} against"
        f" {measured.SHARPE_SIXTEEN} in walk-forwards of 512 envs, at twice the learning rate",
        "learning_rate": f"twice production's, for a quarter of its gradient steps: with 3e-4 Sharpe"
        f" {measured.SHARPE_FOUR} in walk-forwards of 512 envs",
        "compute_dtype": f"{half.seconds} s against {base.seconds} s in float32 {run}",
    }
    if (device.memory_bytes or 0) < ROOMY:
        told = "not reported" if device.memory_bytes is None else f"only {device.memory_bytes / 2**20:,.0f} MiB"
        sizes["n_envs"], reasons["n_envs"] = 32_768, f"its memory is {told}"
    if device.capability is not None and device.capability < BFLOAT16_CAPABILITY:
        sizes["compute_dtype"] = "float32"
        has = ".".join(map(str, device.capability))
        reasons["compute_dtype"] = f"this card has compute capability {has}, and bfloat16 is fast from 8.0 on"
    return DeviceTier(sizes, reasons)


def _configs_folder() -> Path:
    """`configs/` beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


class _PlainLoader(yaml.SafeLoader):
    """Plain values only: no tags that make objects, and no aliases, by which a few lines unfold to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="aliases are not read", problem_mark=mark)
        return super().compose_node(parent, index)


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text of at most `MAX_YAML` characters; `yaml.YAMLError` for anything else."""
    if len(text) > MAX_YAML:
        raise yaml.YAMLError(f"longer than {MAX_YAML:,} characters")
    try:
        return yaml.load(text, _PlainLoader)
    except (ValueError, RecursionError, OverflowError) as error:  # a number, a date or a nesting that Python refuses
        raise yaml.YAMLError(str(error)) from error


def load_yaml(path: Path) -> Any:
    """Parse a YAML file of plain values; `ConfigError` where it cannot be read or parsed."""
    try:
        if path.exists() and not path.is_file():
            raise ConfigError(f"{path}: not a regular file")
        if path.stat().st_size > MAX_YAML:
            raise ConfigError(f"{path}: larger than a configuration can be ({MAX_YAML:,} bytes)")
        return parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({type(error).__name__})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).split("\n")[0][:100]
        raise ConfigError(
            f"{path}{where}: not valid YAML ({problem}); expected `group:` blocks of `field: value`"
        ) from error


def load_preset(name: str) -> dict[str, Any]:
    """Fields that a preset sets, flat, checked against the schema."""
    if name not in PRESETS:
        raise ConfigError(f"preset: unknown preset {name!r}; {nearest(name, PRESETS)}")
    path = _configs_folder() / f"{name}.yaml"
    raw = load_yaml(path) or {}
    flat: dict[str, Any] = {}
    for group, fields in raw.items():
        if group not in GROUPS:
            raise ConfigError(f"{path}: unknown group {group!r}; {nearest(str(group), GROUPS)}")
        checked = group_from_dict(group, fields, str(path))
        flat |= {field: getattr(checked, field) for field in fields}
    return flat


def load_config(path: Path) -> Config:
    """A configuration as a run directory keeps it."""
    return check_config(from_dict(load_yaml(path), str(path)))


def replace_fields(config: Config, values: Mapping[str, Any]) -> Config:
    """`config` with flat fields replaced, mappings merged; unknown names raise `ConfigError`."""
    by_group: dict[str, dict[str, Any]] = {}
    top: dict[str, Any] = {}
    for name, value in values.items():
        if name in FIELD_GROUP:
            old = getattr(getattr(config, FIELD_GROUP[name]), name)
            merged = {**old, **value} if isinstance(old, dict) else value
            by_group.setdefault(FIELD_GROUP[name], {})[name] = merged
        elif name in ("preset", "seed"):
            top[name] = value
        else:
            raise ConfigError(f"unknown field {name!r}; {nearest(name, FIELD_GROUP)}")
    groups = {g: dataclasses.replace(getattr(config, g), **fields) for g, fields in by_group.items()}
    return dataclasses.replace(config, **top, **groups)


def _derived(config: Config) -> dict[str, Any]:
    """Fields that a total budget or a number of validations decides."""
    budget = config.budget
    n_updates = budget.n_updates
    if budget.env_steps > 0 and config.batch_steps > 0:  # sizes of 0 are refused by `check_config`
        n_updates = -(-budget.env_steps // config.batch_steps)
    derived: dict[str, Any] = {"n_updates": n_updates} if n_updates != budget.n_updates else {}
    every = budget.validate_every
    if budget.n_validations > 0:
        every = -(-n_updates // budget.n_validations)
    every = min(every, n_updates)
    if every != budget.validate_every:
        derived["validate_every"] = every
    return derived


def load_own(path: Path) -> tuple[str | None, dict[str, Any]]:
    """A configuration file of a user's own: the preset that it is over, if it names one, and its fields, flat."""
    raw = load_yaml(path) or {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: expected a mapping of config groups, got {type(raw).__name__}")
    config = from_dict(raw, str(path))
    flat = flat_fields(config)
    fields = {f: flat[f] for group in raw if group in GROUPS for f in raw[group]}
    return raw.get("preset"), fields | ({"seed": flat["seed"]} if "seed" in raw else {})


def resolve(
    preset: str | None = None,
    command_line: Mapping[str, Any] | None = None,
    device: DeviceInfo | None = None,
    file: Path | None = None,
) -> Resolved:
    """`layer`, checked: `ConfigError` with the first thing that does not fit."""
    resolved = layer(preset, command_line, device, file)
    check_config(resolved.config)
    return resolved


def layer(
    preset: str | None = None,
    command_line: Mapping[str, Any] | None = None,
    device: DeviceInfo | None = None,
    file: Path | None = None,
) -> Resolved:
    """Layer preset, device tier, a file of one's own, reward preset, action table and command line over the defaults.

    Args:
      preset: a name in PRESETS; by default that of the file, else quick_test.
      command_line: flat fields that the user gave.
      device: needed by the preset `auto`.
      file: YAML of one's own.

    Raises:
      ConfigError: an unknown name, or a file that cannot be read. Whether the values fit together is not looked at.
    """
    command_line = dict(command_line or {})
    named, own = load_own(file) if file is not None else (None, {})
    preset = preset or named or "quick_test"
    known = flat_fields(Config())
    for one, other in _EITHER:
        unset = {other: known[other]}  # 0 of the field's own type: where it is a float, 0 would be read back as 0.0
        if one in command_line:  # it beats what the preset or the file says in the other way
            command_line = {**unset, **command_line}
        if one in own:
            own = {**unset, **own}
    decided = load_preset(preset)
    layers: list[tuple[str, dict[str, Any]]] = [(f"preset {preset}", decided)]
    if preset == "auto":
        if device is None:
            raise ConfigError("preset auto needs a device to choose its sizes for; choose another preset")
        tier = device_tier(device)
        layers += [(f"{CHOSEN} {tier.reasons[name]}", {name: value}) for name, value in tier.sizes.items()]
    if file is not None:
        layers.append((f"config {file}", own))
        decided = decided | own
    reward = {**decided, **command_line}.get("reward", GROUPS["reward"]().reward)
    layers.append((f"reward preset {reward}", dict(REWARD_PRESETS.find(reward, "reward").brings)))
    actions = {**layers[-1][1], **decided, **command_line}.get("actions", GROUPS["env"]().actions)
    layers.append((f"actions {actions}", dict(ACTIONS_BRING.get(actions, {}))))
    layers.append(("command line", {k: v for k, v in command_line.items() if k != "preset"}))

    config, sources = Config(preset=preset), {"preset": "command line"}
    default = Config()
    for source, values in layers:
        if source.startswith(("reward", "actions")):  # a preset or file that names a discount has decided it
            values = {k: v for k, v in values.items() if k not in decided}
        config = replace_fields(config, values)
        sources |= dict.fromkeys(values, source)
    derived = _derived(config) if config.budget.passes <= 0 else {}  # else when the bars are known
    config = replace_fields(config, derived)
    sources |= {name: "derived from " + _why(name, config) for name in derived}
    flat, plain = flat_fields(config), flat_fields(default)
    sources = {k: v for k, v in sources.items() if v.startswith(CHOSEN) or flat.get(k) != plain.get(k)}
    return Resolved(config, sources)


def updates_for_passes(config: Config, decisions: int) -> Config:
    """`config` with the `n_updates` that its `passes` over `decisions` training bars need; as it is where they are 0.

    Call it once the bars are known and before anything is compiled.

    Raises:
      ConfigError: more validations than updates.

    Example:
      >>> config = replace_fields(Config(), {"n_envs": 64, "lanes": 4, "n_steps": 8, "passes": 2.5})
      >>> updates_for_passes(config, 1_000).budget.n_updates  # 2.5 x 1,000 of 16 x 8 bars an update are 19.5
      20
    """
    wanted = config.budget.passes
    if wanted <= 0:
        return config
    n_updates = max(1, math.ceil(wanted / config.passes_over(decisions, 1)))
    config = replace_fields(config, {"n_updates": n_updates})
    config = replace_fields(config, _derived(config))
    require_validations(config)
    return config


def with_updates(resolved: Resolved, decisions: int) -> Resolved:
    """`updates_for_passes` of a configuration, with the source of what follows from it."""
    config = updates_for_passes(resolved.config, decisions)
    before, after = flat_fields(resolved.config), flat_fields(config)
    derived = {name: "derived from passes" for name in after if after[name] != before[name]}
    return Resolved(config, {**resolved.sources, **derived})


def with_default(resolved: Resolved, name: str, value: Any, source: str) -> Resolved:
    """A configuration with another default of one field, where nothing has set it."""
    if name in resolved.sources or flat_fields(resolved.config)[name] == value:
        return resolved
    return Resolved(replace_fields(resolved.config, {name: value}), {**resolved.sources, name: source})


def _why(name: str, config: Config) -> str:
    if name == "n_updates":
        return "env_steps"
    return "n_validations" if config.budget.n_validations > 0 else "n_updates"


def flat_fields(config: Config) -> dict[str, Any]:
    """Every field of a configuration, flat."""
    flat = {f: getattr(getattr(config, g), f) for f, g in FIELD_GROUP.items()}
    return {"preset": config.preset, "seed": config.seed, **flat}


def describe(resolved: Resolved) -> list[str]:
    """The values that are not defaults, or that `auto` chose, and where each came from or why, a line each."""
    flat = flat_fields(resolved.config)
    width = max((len(k) for k in resolved.sources), default=0)
    told = {k: s if s.startswith(("derived", CHOSEN)) else f"from {s}" for k, s in resolved.sources.items()}
    return [f"  {k:<{width}} = {flat[k]!s:<24} {source}" for k, source in sorted(told.items())]
