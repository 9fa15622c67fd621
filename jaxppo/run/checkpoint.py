"""Checkpoints: Orbax v1, asynchronous, self-describing. A path restores the whole train state, or only the policy.

A run keeps its newest checkpoints, the best by validation fitness and the final one under `checkpoints/<update>`. The
configuration, the features and the actions travel in each checkpoint's metadata, so a path is all that a restore needs.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import orbax.checkpoint as orbax

from jaxppo.agent.policy import Agent, Params, init_params, make_agent
from jaxppo.config.schema import Config, from_dict, to_dict
from jaxppo.env.actions import ActionTable
from jaxppo.errors import CheckpointError
from jaxppo.market.dataset import Market
from jaxppo.market.tape import zero_tape
from jaxppo.ppo.guard import first_guard
from jaxppo.ppo.program import TapeSpec, agent_spec, make_train
from jaxppo.ppo.update import ADAM, TrainState, hyper_from

ocp = orbax.v1
FORMAT = 2
READABLE = (1, 2)
"""Format 1 has no guard: what it restores begins with its own parameters as the last good ones."""
FOLDER = "checkpoints"
Which = Literal["latest", "best", "final"] | int


@dataclass(frozen=True)
class CheckpointInfo:
    """What a checkpoint says of itself."""

    config: Config
    feature_names: tuple[str, ...]
    feature_hash: str
    data_hash: str
    actions: ActionTable
    update: int
    fitness: float
    final: bool
    best_fitness: float  # of the run so far
    best_update: int
    elapsed_seconds: float  # of training so far
    format: int = FORMAT

    def to_json(self) -> dict[str, Any]:
        raw = {k: v for k, v in asdict(self).items() if k not in ("config", "actions")}
        raw["feature_names"] = list(self.feature_names)
        actions = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.actions).items()}
        return {**raw, "config": to_dict(self.config), "actions": actions}

    @staticmethod
    def from_json(raw: Any, where: str) -> CheckpointInfo:
        if not isinstance(raw, dict) or raw.get("format") not in READABLE:
            found = raw.get("format") if isinstance(raw, dict) else None
            readable = " or ".join(map(str, READABLE))
            raise CheckpointError(f"{where}: not a jaxppo checkpoint of format {readable} (found {found})")
        fields = dict(raw)
        fields["config"] = from_dict(fields["config"], where)
        actions: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["actions"].items()}
        fields["actions"] = ActionTable(**actions)
        fields["feature_names"] = tuple(fields["feature_names"])
        return CheckpointInfo(**fields)


def _preserve(keep: int) -> Any:
    policies = ocp.training.preservation_policies
    best = policies.BestN(get_metric_fn=lambda m: m["fitness"], n=1, keep_checkpoints_without_metrics=False)
    return policies.AnyPreservationPolicy([policies.LatestN(keep), best])


class CheckpointWriter:
    """Saves asynchronously while the program trains on; `close` waits for the last save."""

    def __init__(self, run_dir: Path, keep: int):
        self._checkpointer = ocp.training.Checkpointer(
            (run_dir / FOLDER).resolve(), preservation_policy=_preserve(keep), cleanup_tmp_directories=True
        )
        self._saving: Any = None

    def save(self, state: TrainState, info: CheckpointInfo) -> None:
        """Copy `state` off the device and write it in the background, once the save before has ended."""
        self._settle()
        self._saving = self._checkpointer.save_checkpointables_async(
            info.update,
            {"train": state._asdict(), "policy": {"params": state.params}},
            force=True,
            overwrite=True,
            metrics={"fitness": info.fitness},
            custom_metadata=info.to_json(),
        )

    def close(self) -> None:
        self._settle()
        self._checkpointer.close()

    def _settle(self) -> None:
        """Wait for the save in flight; only who asks for its result ends the thread and the 3 handles that it has."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()


def _folder(path: Path) -> tuple[Path, int | None]:
    """The checkpoints folder that `path` (a run, its checkpoints, or one of them) belongs to, and the step if one."""
    path = Path(path).resolve()
    if (path / FOLDER).is_dir():
        return path / FOLDER, None
    if path.name.isdigit() and path.is_dir():
        return path.parent, int(path.name)
    if path.is_dir() and any(p.name.isdigit() for p in path.iterdir()):
        return path, None
    raise CheckpointError(
        f"{path}: no checkpoints there; expected a run directory, its {FOLDER}/ folder, or one checkpoint in it"
    )


def _open(path: Path, which: Which) -> tuple[Any, int, CheckpointInfo]:
    folder, step = _folder(path)
    checkpointer = ocp.training.Checkpointer(folder)
    steps = [m.step for m in checkpointer.checkpoints]
    if not steps:
        raise CheckpointError(f"{folder}: holds no finished checkpoint")
    infos = {s: _read_info(checkpointer, s, folder) for s in ([step] if step is not None else steps)}
    chosen = step if step is not None else _choose(infos, which, folder)
    return checkpointer, chosen, infos[chosen]


def _read_info(checkpointer: Any, step: int, folder: Path) -> CheckpointInfo:
    raw = checkpointer.checkpointables_metadata(step).custom_metadata
    return CheckpointInfo.from_json(raw, str(folder / str(step)))


def _choose(infos: dict[int, CheckpointInfo], which: Which, folder: Path) -> int:
    if isinstance(which, int):
        if which not in infos:
            raise CheckpointError(f"{folder}: no checkpoint of update {which}; there are {sorted(infos)}")
        return which
    if which == "best":
        return max(infos, key=lambda s: (infos[s].fitness, s))
    if which == "final" and not infos[max(infos)].final:
        raise CheckpointError(f"{folder}: the run has not finished, its last checkpoint is of update {max(infos)}")
    return max(infos)


def _abstract(tree: Any) -> Any:
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)


def _load(checkpointer: Any, step: int, name: str, abstract: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Orbax warns where it reads the sharding file itself
        try:
            return checkpointer.load_checkpointables(step, {name: abstract})[name]
        except (ValueError, KeyError, OSError) as error:
            where = checkpointer.directory / str(step)
            raise CheckpointError(f"{where}: cannot be restored ({str(error).splitlines()[0][:200]})") from error


@dataclass(frozen=True)
class RestoredPolicy:
    """A policy and what it was trained on; `agent.encode` and `agent.decide` apply it."""

    params: Params
    agent: Agent
    info: CheckpointInfo


def restore_policy(path: str | Path, which: Which = "best", market: Market | None = None) -> RestoredPolicy:
    """Restore only the policy.

    Args:
      path: a run directory, its `checkpoints/` folder, or one checkpoint in it.
      which: "best" by validation fitness, "latest", "final", or the number of an update.
      market: the data that the policy is to trade; its features must be those of the training.

    Raises:
      CheckpointError: nothing there, not restorable, or not made for `market`.
    """
    checkpointer, step, info = _open(Path(path), which)
    if market is not None:
        require_match(info, market.feature_names, info.actions, market.feature_hash)
    spec = agent_spec(info.config, len(info.feature_names), info.actions.n_actions)
    shapes = jax.eval_shape(lambda: init_params(spec, jax.random.key(0)))
    loaded = _load(checkpointer, step, "policy", _abstract({"params": shapes}))
    return RestoredPolicy(loaded["params"], make_agent(spec), info)


def restore_train_state(path: str | Path, which: Which = "latest") -> tuple[TrainState, CheckpointInfo]:
    """Restore the whole train state: parameters, optimizer, paths, accounts, key and count. Arguments as above."""
    checkpointer, step, info = _open(Path(path), which)
    program = make_train(info.config, TapeSpec(len(info.feature_names), 1))
    # A train state's shapes depend on the number of features alone, so the smallest Tape will do.
    tape = jax.eval_shape(lambda: zero_tape(1, 1, len(info.feature_names)))
    shapes = jax.eval_shape(program.init, jax.random.key(0), hyper_from(info.config), tape)
    saved = {k: v for k, v in shapes._asdict().items() if k != "guard" or info.format > 1}
    loaded = _load(checkpointer, step, "train", _abstract(saved))
    if "guard" not in loaded:
        loaded["guard"] = first_guard(loaded["params"], loaded["opt_state"][ADAM])
    return TrainState(**loaded), info


def require_match(
    info: CheckpointInfo, feature_names: Sequence[str], actions: ActionTable, feature_hash: str | None = None
) -> None:
    """`CheckpointError` naming both sides unless a policy's features and actions are those of the data at hand."""
    for mine, theirs in zip(info.feature_names, feature_names, strict=False):
        if mine != theirs:
            raise CheckpointError(
                f"the policy was trained with feature {mine!r} where the data has {theirs!r}"
                f" ({len(info.feature_names)} features against {len(feature_names)}); use the same --features"
            )
    if len(info.feature_names) != len(feature_names):
        longer = max(info.feature_names, feature_names, key=len)
        extra = longer[min(len(info.feature_names), len(feature_names))]
        raise CheckpointError(
            f"the policy was trained with {len(info.feature_names)} features and the data has {len(feature_names)};"
            f" the first without a counterpart is {extra!r}; use the same --features"
        )
    if feature_hash is not None and info.feature_hash != feature_hash:
        raise CheckpointError(
            f"the policy's features have the hash {info.feature_hash[:12]} and the data's {feature_hash[:12]}: the"
            " names agree, but not the scaling; the policy was trained with --scale-window"
            f" {info.config.features.scale_window}"
        )
    if info.actions != actions:
        raise CheckpointError(
            f"the policy was trained with actions {info.actions.name!r} {list(info.actions.labels)} and this run has"
            f" {actions.name!r} {list(actions.labels)}; use the same --actions"
        )
