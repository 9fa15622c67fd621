"""What the public names do: a configuration, a market, an env or a program of it, and each command as a function.

Everything here is a few lines on top of the rooms; names, defaults and errors are those of the command lines.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_type_hints

import jax

from jaxppo.agent.encoders import receptive_field
from jaxppo.cli import Request
from jaxppo.config.layers import resolve, updates_for_passes
from jaxppo.config.schema import FIELD_GROUP, Config, coerce_fields
from jaxppo.device import detect_device
from jaxppo.env.trading import BoundEnv
from jaxppo.env.trading import make_env as env_on_tape
from jaxppo.errors import ConfigError, nearest
from jaxppo.market.asset_classes import ASSET_CLASSES
from jaxppo.market.bars import Bars
from jaxppo.market.dataset import Market, evaluation_set
from jaxppo.market.dataset import build_market as lay_out
from jaxppo.play.passes import n_decisions
from jaxppo.play.score import Figures
from jaxppo.ppo.program import SegmentOutput, TapeSpec
from jaxppo.ppo.program import make_train as program_of
from jaxppo.ppo.state import Hyper, TrainState, hyper_from
from jaxppo.store.checkpoint import RestoredPolicy

Options = TypeVar("Options")


def make_config(preset: str = "quick_test", **fields: Any) -> Config:
    """A checked configuration.

    Args:
      preset: budgets to start from; see `configs/`.
      fields: any field of `jaxppo.config.schema` by its name, as the command line has it.

    Raises:
      ConfigError: an unknown name, or values that do not fit together.

    Example:
      >>> import jaxppo
      >>> jaxppo.make_config("standard", learning_rate=1e-3).ppo.learning_rate
      0.001
    """
    return resolve(preset, coerce_fields(fields, "make_config"), detect_device()).config


def build_market(bars: Sequence[Bars], config: Config) -> Market:
    """Features, splits by time and the Tapes of some bars, one entry a symbol.

    Raises:
      DataError: a symbol too short, or a feature that is not finite.

    Example:
      >>> import jaxppo
      >>> market = jaxppo.build_market(jaxppo.synthetic_market(27), jaxppo.make_config())
      >>> market.splits["train"].tape.features.shape  # symbols, bars, features
      (8, 16780, 53)
    """
    return lay_out(bars, config, receptive_field(config.agent))


def make_env(market: Market, config: Config, split: str = "train") -> BoundEnv:
    """The environment alone: pure `reset(key)`, `step(state, action)` and `valid_actions(observation)`.

    Example:
      >>> import jax, jaxppo
      >>> config = jaxppo.make_config()
      >>> env = jaxppo.make_env(jaxppo.build_market(jaxppo.synthetic_market(27), config), config)
      >>> states, observations = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 4))
      >>> observations.account.shape
      (4, 8)
    """
    return env_on_tape(market.splits[split].tape, config.env, config.reward)


class Training(NamedTuple):
    """Pure functions of one training run, bound to its market; `jit` and `vmap` them as you like."""

    hyper: Hyper  # the configured hyperparameters, () float32 each
    init: Callable[[jax.Array, Hyper], TrainState]  # of a key
    segment: Callable[
        [TrainState, Hyper, jax.Array | int], tuple[TrainState, SegmentOutput]
    ]  # and a number of updates: an int, static, or () int32
    train: Callable[[jax.Array, Hyper], tuple[TrainState, Figures]]  # of a key: the whole run, all validations included


def make_train(config: Config, market: Market) -> Training:
    """The compiled program's functions for a configuration and a market.

    Example:
      >>> import jax, jaxppo
      >>> config = jaxppo.make_config(n_envs=256, lanes=16, n_updates=1)
      >>> training = jaxppo.make_train(config, jaxppo.build_market(jaxppo.synthetic_market(27), config))
      >>> state = jax.eval_shape(training.init, jax.random.key(0), training.hyper)
      >>> state.update.shape
      ()
    """
    config = updates_for_passes(config, market.n_decided("train"))
    tape, data = market.splits["train"].tape, evaluation_set(market.splits["validation"])
    program = program_of(config, TapeSpec(tape.n_features, n_decisions(data.tape)))

    def init(key: jax.Array, hyper: Hyper) -> TrainState:
        return program.init(key, hyper, tape)

    def segment(state: TrainState, hyper: Hyper, n_updates: jax.Array | int) -> tuple[TrainState, SegmentOutput]:
        return program.segment(state, hyper, tape, data, n_updates)

    def train(key: jax.Array, hyper: Hyper) -> tuple[TrainState, Figures]:
        return program.train(key, hyper, tape, data)

    return Training(hyper_from(config), init, segment, train)


decide = RestoredPolicy.decide
"""`jaxppo.decide(policy, bars, account)` is `policy.decide(bars, account)`."""


def train(preset: str | None = None, **values: Any) -> Path:
    """`python -m jaxppo.train`: train, validate, checkpoint and report; returns the run directory.

    Args:
      preset: budgets to start from, by default quick_test.
      values: fields of the configuration and of `jaxppo.train.run.RunOptions`, such as `run_dir`.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example (of a few seconds: without the sizes it is a real run):
      >>> import jaxppo
      >>> sizes = dict(n_envs=16, lanes=4, n_steps=4, episode_steps=16, minibatches=2)  # doctest: +SKIP
      >>> run = jaxppo.train("quick_test", run_dir="runs/my-run", n_updates=2, **sizes)  # doctest: +SKIP
      >>> assert (run / "report.html").is_file()  # doctest: +SKIP
    """
    from jaxppo.train.run import RunOptions, train_run

    return train_run(_request(RunOptions, preset, values, "train"))


def walkforward(preset: str | None = None, **values: Any) -> Path:
    """`python -m jaxppo.walkforward`: train and test on one period after another; returns the folder.

    Args:
      preset: budgets of each fold, by default quick_test.
      values: fields of the configuration and of `jaxppo.walkforward.run.WalkforwardOptions`, such as `folds` and `out`.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example (of a few seconds: without the sizes it is a real one):
      >>> import jaxppo
      >>> sizes = dict(n_envs=16, lanes=4, n_steps=4, episode_steps=16, minibatches=2)  # doctest: +SKIP
      >>> folder = jaxppo.walkforward(folds=2, out="runs/folds", n_updates=2, **sizes)  # doctest: +SKIP
      >>> assert (folder / "summary.json").is_file()  # doctest: +SKIP
    """
    from jaxppo.walkforward.run import WalkforwardOptions, walkforward_run

    return walkforward_run(_request(WalkforwardOptions, preset, values, "walkforward"))


def sweep(preset: str | None = None, **values: Any) -> Path:
    """`python -m jaxppo.sweep`: search fields of the configuration, judge the winner; returns the folder.

    Args:
      preset: budgets of each trial, by default quick_test.
      values: fields of the configuration and of `jaxppo.sweep.options.SweepOptions`; `search` is a mapping here, of
        fields to what a file of a space has: `{"log": [1e-4, 3e-3]}`, or a list of categories.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example (of a few seconds: without the sizes it is a real one):
      >>> import jaxppo
      >>> sizes = dict(n_envs=16, lanes=4, n_steps=4, episode_steps=16, minibatches=2)  # doctest: +SKIP
      >>> space = {"learning_rate": {"log": [1e-4, 3e-3]}}  # doctest: +SKIP
      >>> folder = jaxppo.sweep(search=space, trials=2, out="runs/sweep", n_updates=2, **sizes)  # doctest: +SKIP
      >>> policy = jaxppo.restore_policy(folder / "policy")  # doctest: +SKIP
    """
    from jaxppo.sweep.options import SweepOptions
    from jaxppo.sweep.run import sweep_run

    return sweep_run(_request(SweepOptions, preset, values, "sweep"))


def backtest(run_dir: str | Path, **values: Any) -> Path:
    """`python -m jaxppo.backtest`: a run's policy next to what it must beat; returns the folder.

    Args:
      run_dir: of the run.
      values: fields of `jaxppo.backtest.run.BacktestOptions`, such as `split`, `which` and `data`.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example:
      >>> import jaxppo
      >>> folder = jaxppo.backtest("runs/my-run", out="runs/tested", random_draws=2)  # doctest: +SKIP
      >>> assert (folder / "metrics.json").is_file()  # doctest: +SKIP
    """
    from jaxppo.backtest.run import BacktestOptions, backtest_run

    return backtest_run(_all(BacktestOptions, {"run_dir": run_dir, **values}, "backtest"))


def act(run_dir: str | Path, bars: str | Path, **values: Any) -> dict[str, Any]:
    """`python -m jaxppo.act`: what a run's policy does at the newest bar; returns what the command prints.

    Args:
      run_dir: of the run.
      bars: file or folder of bars up to the newest.
      values: further fields of `jaxppo.act.run.ActOptions`, such as `account` and `now`.

    Raises:
      JaxppoError: why it does not decide, in one sentence.

    Example:
      >>> import jaxppo
      >>> line = jaxppo.act("runs/my-run", "bars/", account="account.json")  # doctest: +SKIP
      >>> line["decisions"][0]["order"]  # doctest: +SKIP
      0.0917
    """
    from jaxppo.act.run import ActOptions, act_run

    return act_run(_all(ActOptions, {"run_dir": run_dir, "bars": bars, **values}, "act"))


def paper(run_dir: str | Path, **values: Any) -> Path:
    """`python -m jaxppo.paper`: trade what a run's policy decides, by default simulated and dry; returns the folder.

    Args:
      run_dir: of the run.
      values: fields of `jaxppo.paper.options.PaperOptions`, such as `submit` and `broker`.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example:
      >>> import jaxppo
      >>> folder = jaxppo.paper("runs/my-run", submit=True, out="runs/paper")  # doctest: +SKIP
      >>> compared = jaxppo.replay(journal=folder, out="runs/compared")  # doctest: +SKIP
    """
    from jaxppo.paper.options import PaperOptions
    from jaxppo.paper.run import paper_run

    options = _all(PaperOptions, {"run_dir": run_dir, **values}, "paper")
    paper_run(options)
    return options.folder()


def export(run_dir: str | Path, **values: Any) -> Path:
    """`python -m jaxppo.export`: a run's policy as a folder that decides without jaxppo; returns the folder.

    Args:
      run_dir: of the run.
      values: fields of `jaxppo.export.run.ExportOptions`, such as `format` and `out`.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example:
      >>> import jaxppo
      >>> folder = jaxppo.export("runs/my-run", format="numpy")  # doctest: +SKIP
      >>> assert (folder / "decide.py").is_file()  # doctest: +SKIP
    """
    from jaxppo.export.run import ExportOptions, export_run

    return export_run(_all(ExportOptions, {"run_dir": run_dir, **values}, "export"))


def replay(
    bars: str | Path | None = None, targets: str | Path | None = None, out: str | Path = "replay", **values: Any
) -> Path:
    """`python -m jaxppo.replay`: your own decisions through the account of the environment; returns the folder.

    Args:
      bars: file or folder of bars.
      targets: CSV file of decisions: `bar` and one of `target`, `units` and `order_units`.
      out: folder to write.
      values: further fields of `jaxppo.replay.run.ReplayOptions`, such as `fee` and `cash`; or `journal` alone, the
        folder of a session of paper trading.

    Raises:
      JaxppoError: what the command line would print as one sentence.

    Example:
      >>> from pathlib import Path
      >>> import jaxppo
      >>> rows = ["timestamp,open,high,low,close", *(f"2024-01-{d:02},{d},{d + 1},{d},{d + 1}" for d in range(1, 30))]
      >>> _ = Path("bars.csv").write_text("\\n".join(rows))  # doctest: +SKIP
      >>> _ = Path("targets.csv").write_text("bar,target\\n0,1.0\\n20,0.0\\n")  # doctest: +SKIP
      >>> folder = jaxppo.replay("bars.csv", "targets.csv", "runs/replay", fee=0.001)  # doctest: +SKIP
      >>> assert (folder / "equity.csv").is_file()  # doctest: +SKIP
    """
    from jaxppo.replay.run import ReplayOptions, replay_run

    return replay_run(_all(ReplayOptions, {"bars": bars, "targets": targets, "out": out, **values}, "replay"))


def _request(cls: type[Options], preset: str | None, values: Mapping[str, Any], where: str) -> Request[Options]:
    """As the command line asks: a command's own options, and the fields of the configuration; `config` is a file."""
    own = {f.name for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    rest = {k: v for k, v in values.items() if k not in own and k != "config"}
    unknown = [k for k in rest if k not in FIELD_GROUP and k != "seed"]
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}; {nearest(unknown[0], [*own, *FIELD_GROUP])}")
    rest = _fee_of_every_class(rest)
    options = _all(cls, {k: v for k, v in values.items() if k in own}, where)
    file = Path(values["config"]) if "config" in values else None
    return Request(options, preset, coerce_fields(rest, where), file)


def _all(cls: type[Options], values: Mapping[str, Any], where: str) -> Options:
    """A dataclass of options; text is a path where the option is one."""
    hints, values = get_type_hints(cls), _fee_of_every_class(values)
    for name in values:
        if name not in hints:
            raise ConfigError(f"{where}: unknown option {name!r}; {nearest(name, hints)}")
    return cls(**{k: Path(v) if isinstance(v, str) and "Path" in str(hints[k]) else v for k, v in values.items()})


def _fee_of_every_class(values: Mapping[str, Any]) -> dict[str, Any]:
    """As on the command line, a `fee` that is one number is that of every asset class."""
    fee = values.get("fee")
    return {**values, "fee": dict.fromkeys(ASSET_CLASSES, float(fee))} if isinstance(fee, (int, float)) else {**values}
