"""Checkpoints: Orbax v1, in the background, self-describing. A path restores the whole train state, or only the policy.

A run keeps its newest checkpoints, the best by validation fitness and the final one under `checkpoints/<update>`. The
configuration, the features, the actions and checksums travel in each, so a path is all that a restore needs; so does
the best policy so far, which therefore outlives its own checkpoint.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import time
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding

from jaxppo.agent.policy import Agent, AgentSpec, Params, init_params, make_agent
from jaxppo.env.actions import ActionTable
from jaxppo.env.trading import ACCOUNT_FEATURES
from jaxppo.errors import CheckpointError, CheckpointWarning, ConfigError
from jaxppo.hosts import ALONE, Hosts
from jaxppo.live.policy import Deciding
from jaxppo.market.dataset import Market
from jaxppo.market.tape import zero_tape
from jaxppo.play.best import best_update
from jaxppo.plugins import require_plugins
from jaxppo.ppo.layout import fetch, of_members, place
from jaxppo.ppo.program import TapeSpec, make_train
from jaxppo.ppo.state import TrainState, hyper_from
from jaxppo.store.arrays import load_arrays, orbax
from jaxppo.store.checkpoint_info import INFO, CheckpointInfo, survey
from jaxppo.store.checksums import seal
from jaxppo.store.files import sync_folder
from jaxppo.store.json import write_json

FOLDER = "checkpoints"
_DESCRIPTIONS = 2**17  # bytes; measured are some 50,000, most of them Orbax's
LEFT_BEHIND = re.compile(r"\d+(\.saving|\.removing|\.orbax-checkpoint-tmp)+")  # by a process that was killed
Which = Literal["latest", "best", "final"] | int


def parse_which(text: str) -> Which:
    """A checkpoint's name or the number of an update."""
    if text in ("best", "latest", "final"):
        return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    raise ConfigError(f"which: unknown checkpoint {text!r}; give best, latest, final or the number of an update")


def _largest(state: TrainState) -> int:
    """Most bytes that a checkpoint takes: its arrays, if they do not compress at all, and their descriptions."""
    arrays = sum(x.nbytes for x in jax.tree.leaves((state, state.params, state.params)))
    return int(1.01 * arrays) + _DESCRIPTIONS


def _reason(error: Exception) -> str:
    """Why a save failed, in a phrase: TensorStore puts the system's message at the end of a long text."""
    text = str(error)
    if found := re.search(r": ([^:]+) \[os_error_code", text):
        return found[1]
    return text.splitlines()[0][:200] if text else type(error).__name__


class CheckpointWriter:
    """Saves in the background while the program trains on, and removes what need not be kept.

    A checkpoint is written under another name, sealed with its checksums, and renamed when all of it is on the disk: a
    folder with the name of an update is a whole checkpoint. A save that fails leaves the older ones as they are.
    """

    def __init__(self, run_dir: Path, keep: int, hosts: Hosts = ALONE):
        self._folder = (run_dir / FOLDER).resolve()
        self._hosts = hosts
        if hosts.lead:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in (p for p in self._folder.iterdir() if LEFT_BEHIND.fullmatch(p.name)):
                shutil.rmtree(left)
        hosts.wait()
        self._keep = keep
        self._fitness = {step: info.fitness for step, info in survey(self._folder).sound.items()}
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[None] | None = None
        self._failure: str | None = None  # of the last save
        self._doing = ""  # what it was that failed
        self.seconds = 0.0  # that the last save took

    @property
    def updates(self) -> list[int]:
        """Updates of the sound checkpoints."""
        return sorted(self._fitness)

    def bound(self, state: TrainState) -> str:
        """How much room the checkpoints of a run take at most, in a line."""
        most = (self._keep + 2) * _largest(state) / 2**20
        return f"checkpoints: the newest {self._keep}, the best and one being written, at most {most:.2f} MiB in all"

    def kept(self, state: TrainState) -> dict[str, Any]:
        """What is on the disk, and the most bytes that it can take."""
        sizes = [sum(p.stat().st_size for p in (self._folder / str(u)).rglob("*") if p.is_file()) for u in self.updates]
        return {"updates": self.updates, "bytes": sum(sizes), "most_bytes": (self._keep + 2) * _largest(state)}

    def save(self, state: TrainState, info: CheckpointInfo, best: Params | None = None) -> None:
        """Copy `state` off the device and write it in the background, after the save before.

        Args:
          state: of the run; may be donated as soon as this returns.
          info: what the checkpoint says of itself.
          best: the policy with the highest fitness so far; by default that of `state`.
        """
        self._settle()
        best = state.params if best is None else best
        if self._hosts.count > 1:
            self._write_together(state, best, info)
            return
        # A copy: on the CPU a view would keep the buffers from being donated, or show what is written into them next.
        host, best = fetch((state, best))
        self._running = self._thread.submit(self._write, host, best, info)

    def wait(self) -> str | None:
        """Wait for the save in flight; what was wrong with it, or None."""
        self._settle()
        failure, self._failure = self._failure, None
        return failure

    def close(self) -> None:
        """Wait for the save in flight and stop; safe to call again.

        Raises:
          CheckpointError: the last save failed, and nobody asked with `wait`.
        """
        failure = self.wait()
        self._thread.shutdown()
        if failure is not None:
            raise CheckpointError(failure)

    def _settle(self) -> None:
        running, self._running = self._running, None
        if running is None:
            return
        try:
            running.result()
            self._failure = None
        except Exception as error:  # TensorStore says of a full disk that it is a ValueError
            reason = _reason(error)
            self._failure = f"{self._folder}: {self._doing} ({reason})"

    def _write_together(self, state: TrainState, best: Params, info: CheckpointInfo) -> None:
        """Every process writes what its devices have, while the program waits: Orbax asks the devices, in turn with it.

        Raises:
          CheckpointError: it could not be saved. The others learn of it as this process ends.
        """
        try:
            lies = state.update.sharding
            assert isinstance(lies, NamedSharding)
            assert isinstance(lies.mesh, Mesh)
            self._write(state, place(lies.mesh, best, of_members(state)), info)
        except Exception as error:
            raise CheckpointError(f"{self._folder}: {self._doing} ({_reason(error)})") from error

    def _write(self, state: TrainState, best: Params, info: CheckpointInfo) -> None:
        from jaxppo.store.tensorstore_leaks import without_leaks  # imports Orbax: see `orbax`

        began, self._doing = time.perf_counter(), "a checkpoint could not be saved"
        final = self._folder / str(info.update)
        part = self._folder / f"{info.update}.saving"
        try:
            if self._hosts.lead:
                if shutil.disk_usage(self._folder).free < _largest(state):
                    # Asked beforehand: where TensorStore finds a disk full, it prints thousands of lines of its own.
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()  # where Orbax finds that it cannot, it leaves a thread that never ends
                if self._hosts.count > 1:
                    part.rmdir()  # processes that find a folder to overwrite remove it at the same time
            self._hosts.wait()
            parts = {"train": state._asdict(), "policy": {"params": state.params}, "best": {"params": best}}
            with without_leaks():
                orbax().save_checkpointables(part, parts, overwrite=True)
            if self._hosts.lead:
                write_json(part / INFO, info.to_json())
                seal(part)
                self._remove(info.update)  # one that was damaged, or is done again
                part.rename(final)
                sync_folder(self._folder)
            self._hosts.wait()
        except Exception:
            for left in self._folder.glob(f"{part.name}*"):
                shutil.rmtree(left, ignore_errors=True)
            raise
        self._fitness[info.update] = info.fitness
        self._doing = "a checkpoint was saved, but one that need not be kept could not be removed"
        self._retain()
        self.seconds = time.perf_counter() - began

    def _retain(self) -> None:
        """Keep the newest, the best, and nothing else: damaged ones go too."""
        kept = {*self.updates[-self._keep :], best_update(self._fitness)}
        here = [int(p.name) for p in self._folder.iterdir() if p.name.isdecimal()] if self._hosts.lead else self.updates
        for step in here:
            if step not in kept:
                self._remove(step)

    def _remove(self, step: int) -> None:
        """Remove a checkpoint. It is renamed first, so that one removed by half is never taken for a damaged one."""
        self._fitness.pop(step, None)
        path = self._folder / str(step)
        if self._hosts.lead and path.exists():
            gone = path.rename(self._folder / f"{step}.removing")
            shutil.rmtree(gone)


def save_once(run_dir: Path, state: TrainState, info: CheckpointInfo, best: Params | None = None) -> dict[str, Any]:
    """Write the one checkpoint of a run that goes no further; what `CheckpointWriter.kept` says then.

    Raises:
      CheckpointError: it could not be saved.
    """
    writer = CheckpointWriter(run_dir, keep=1)
    try:
        writer.save(state, info, best)
    finally:
        writer.close()
    return writer.kept(state)


def _folder(path: Path) -> tuple[Path, int | None]:
    """The checkpoints folder that `path` (a run, its checkpoints, or one of them) belongs to, and the step if one."""
    path = Path(path).resolve()
    if (path / FOLDER).is_dir():
        return path / FOLDER, None
    if path.name.isdecimal() and path.is_dir():
        return path.parent, int(path.name)
    if path.is_dir() and any(p.name.isdecimal() for p in path.iterdir()):
        return path, None
    raise CheckpointError(
        f"{path}: no checkpoints there; expected a run directory, its {FOLDER}/ folder, or one checkpoint in it"
    )


def has_checkpoints(run_dir: Path) -> bool:
    """Whether a run has any, sound or not."""
    folder = run_dir / FOLDER
    return folder.is_dir() and any(p.name.isdecimal() for p in folder.iterdir())


class _Chosen(NamedTuple):
    path: Path  # of the checkpoint
    policy: str  # part of it that is the policy asked for
    info: CheckpointInfo


def _open(path: Path, which: Which) -> _Chosen:
    """The checkpoint asked for, whose plugins are loaded."""
    chosen = _find(path, which)
    require_plugins(chosen.info.plugins, str(chosen.path))
    return chosen


def _find(path: Path, which: Which) -> _Chosen:
    """The checkpoint asked for. By name, damaged ones are passed over with a warning; by number, they are refused."""
    folder, step = _folder(path)
    which = which if step is None else step
    sound, damaged = survey(folder)
    if isinstance(which, int):
        if which in damaged:
            raise CheckpointError(f"{folder / str(which)}: is damaged: {damaged[which]}; sound are {sorted(sound)}")
        if which not in sound:
            raise CheckpointError(f"{folder}: no checkpoint of update {which}; there are {sorted(sound)}")
        return _Chosen(folder / str(which), "policy", sound[which])
    if not sound:
        if not damaged:
            raise CheckpointError(f"{folder}: holds no finished checkpoint")
        told = "; ".join(f"{folder / str(s)}: {text}" for s, text in damaged.items())
        raise CheckpointError(f"none of the checkpoints is sound: {told}")
    chosen = _choose(sound, which, folder)
    for number, text in damaged.items():
        warnings.warn(
            f"{folder / str(number)}: is damaged: {text}; the checkpoint of update {chosen.path.name} is used",
            CheckpointWarning,
            stacklevel=4,
        )
    return chosen


def _choose(infos: dict[int, CheckpointInfo], which: str, folder: Path) -> _Chosen:
    newest = max(infos)
    if which == "best":
        last = infos[newest]
        step = best_update({last.best_update: last.best_fitness, **{s: info.fitness for s, info in infos.items()}})
        if step not in infos:  # its own checkpoint is gone; the newest has a copy
            info = replace(last, update=last.best_update, fitness=last.best_fitness, final=False)
            return _Chosen(folder / str(newest), "best", info)
        return _Chosen(folder / str(step), "policy", infos[step])
    if which == "final" and not infos[newest].final:
        raise CheckpointError(f"{folder}: the run has not finished, its last checkpoint is of update {newest}")
    return _Chosen(folder / str(newest), "policy", infos[newest])


@dataclass(frozen=True)
class RestoredPolicy(Deciding):
    """A policy and what it was trained on; `decide` and `stream` use it, `agent.encode` and `agent.act` apply it."""

    params: Params  # (N,), or (M, N) of an ensemble
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
    chosen = _open(Path(path), which)
    info = chosen.info
    if market is not None:
        require_match(info, market.feature_names, info.actions, market.feature_hash)
    return RestoredPolicy(_load_policy(chosen.path, chosen.policy, info), make_agent(_agent_spec(info)), info)


def _agent_spec(info: CheckpointInfo) -> AgentSpec:
    return AgentSpec(info.config.agent, len(info.feature_names), len(ACCOUNT_FEATURES), info.actions.n_actions)


def _load_policy(checkpoint: Path, part: str, info: CheckpointInfo, members: tuple[int, ...] = ()) -> Params:
    shapes = jax.eval_shape(lambda: init_params(_agent_spec(info), jax.random.key(0)))
    if (seeds := info.config.budget.seeds) > 1:
        shapes = jax.ShapeDtypeStruct((seeds, *shapes.shape), shapes.dtype)
    return load_arrays(checkpoint, part, _many({"params": shapes}, members), finite=("params",))["params"]


def _many(shapes: Any, members: tuple[int, ...]) -> Any:
    """Shapes of a population of (M,) members, or as they are for ()."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((*members, *x.shape), x.dtype), shapes)


def restore_train_state(path: str | Path, which: Which = "latest") -> tuple[TrainState, CheckpointInfo]:
    """Restore the whole train state: parameters, optimizer, paths, accounts, key and count. Arguments as above."""
    chosen = _open(Path(path), which)
    return _load_state(chosen), chosen.info


def restore_run(run_dir: Path) -> tuple[TrainState, Params, CheckpointInfo]:
    """What a run goes on from: the state and the best policy so far, of its newest sound checkpoint."""
    chosen = _open(run_dir, "latest")
    return _load_state(chosen), _load_policy(chosen.path, "best", chosen.info), chosen.info


def restore_members(folder: Path, n_members: int) -> tuple[TrainState, Params, CheckpointInfo]:
    """What a population goes on from, of its newest sound checkpoint: host arrays with an axis of members first."""
    chosen, members = _open(folder, "latest"), (n_members,)
    best = _load_policy(chosen.path, "best", chosen.info, members)
    state, best = jax.device_get((_load_state(chosen, members), best))
    return state, best, chosen.info


def _load_state(chosen: _Chosen, members: tuple[int, ...] = ()) -> TrainState:
    info = chosen.info
    program = make_train(info.config, TapeSpec(len(info.feature_names), 1))
    # A train state's shapes depend on the number of features alone, so the smallest Tape will do.
    tape = jax.eval_shape(lambda: zero_tape(1, 1, len(info.feature_names)))
    shapes = jax.eval_shape(program.init, jax.random.key(0), hyper_from(info.config), tape)
    shapes = _many(shapes, members)
    return TrainState(**load_arrays(chosen.path, "train", shapes._asdict(), finite=("params", "moments", "guard")))


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
