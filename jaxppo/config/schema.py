"""The configuration: frozen dataclasses, one a concern, checked once.

Field names are unique over all groups, so that each is one flat command-line flag (`--learning-rate`). The string
under a field is its help text. Derived sizes are properties; nothing is ever mutated in.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin, get_type_hints

from jaxppo.errors import ConfigError, nearest


@dataclass(frozen=True, kw_only=True)
class BarsFilter:
    """What to say of a file or folder of bars: the flags of every command that reads one."""

    interval: str | None = None
    """Bar interval to use, such as 30m, 1h or 1d; needed where a folder holds several."""
    symbols: tuple[str, ...] = ()
    """Symbols to use; all that are found when empty."""
    timezone: str | None = None
    """Time zone of naive timestamps in the files, such as UTC, America/New_York or EET."""
    asset_classes: dict[str, str] = field(default_factory=dict)
    """SYMBOL CLASS pairs that override the guessed asset class (equity, crypto or fx, or a plugin's)."""
    symbol_from: str | None = None
    """Where file names hold the symbol, such as 'acme_{symbol}_*' (* is anything); for names not understood."""


@dataclass(frozen=True, kw_only=True)
class DataConfig(BarsFilter):
    """Which bars, and how they are split by time."""

    data: str | None = None
    """File or folder of Parquet or CSV bars; without it, the embedded synthetic market."""
    corporate_actions: str | None = None
    """CSV or Parquet file of splits and dividends: symbol, date, split (new shares for an old one), dividend (a
    share)."""
    resample: str | None = None
    """Interval of the bars to make of those that are read, such as 4h, 1d or 1w, by the sessions of their class."""
    split_by: Literal["time", "symbol"] = "time"
    """time: the same cut-off dates for every symbol; symbol: fractions of each symbol's own bars (leaks time)."""
    train_fraction: float = 0.70
    """Share of all bars before the first cut-off date."""
    validation_fraction: float = 0.15
    """Share of all bars between the two cut-off dates; the rest is the test split."""
    purge_bars: int = 0
    """Bars between splits that no decision uses; raised to receptive field + reward horizon if less."""
    market_seed: int = 27
    """Seed of the embedded synthetic market."""


@dataclass(frozen=True)
class FeatureConfig:
    """Which market features the policy sees."""

    features: tuple[str, ...] = ("base", "intraday", "calendar", "regime", "technical", "multi_window")
    """Feature groups, in order."""
    scale_window: int = 256
    """Bars of the causal rolling mean and deviation that scale the unbounded features."""
    trend_returns: tuple[int, ...] = (1, 5, 21, 63, 126, 252)
    """Horizons in bars of the returns of the features `trend`."""
    trend_macd: tuple[int, ...] = (8, 16, 32)
    """Fast averages in bars of the MACD of the features `trend`; the slow ones are three times as long."""
    context: tuple[str, ...] = ()
    """Longer intervals, such as 4h 1d, whose bars' features are seen too: those of the last one that is complete."""
    context_features: tuple[str, ...] = ("base",)
    """Feature groups of those longer bars."""
    extra_features: str | None = None
    """CSV or Parquet file of features from elsewhere, such as another model's predictions: timestamp (when a row became
    known), symbol, and a column a feature. At a bar's close the newest row known by then is seen."""
    extra_delay: str = "0"
    """How much later than their timestamps those rows become known: bars, such as 1, or a duration, such as 4h."""
    extra_max_age: str | None = None
    """Bars, or a duration, after which such a row must have been followed by another; by default it just stays."""
    extra_scale: Literal["usual_size", "none"] = "usual_size"
    """usual_size: those columns over the root mean square of their last scale_window bars, clipped; none: as they
    are."""


@dataclass(frozen=True)
class EnvConfig:
    """The account: actions, costs, stops and episode ends."""

    actions: str = "targets"
    """Action table: hold_buy_sell, sized, sized_close or targets, or a plugin's."""
    targets: tuple[float, ...] = (-1.0, 0.0, 1.0)
    """Target exposures of the `targets` action table."""
    max_exposure: float = 1.0
    """Largest position notional as a multiple of equity; above 1 is leverage."""
    size_by: Literal["equity", "volatility"] = "equity"
    """What an action's 1 stands for: equity, or as much as is expected to have the target volatility, so that all
    symbols carry the same risk."""
    target_volatility: float = 0.15
    """Yearly volatility of a position of 1 where positions are sized by volatility."""
    volatility_span: int = 60
    """Span in bars of the exponentially weighted deviation of past returns that forecasts volatility."""
    act_by: Literal["mode", "mean"] = "mode"
    """What a policy does where it is validated, tested or used: its most probable action, or the exposure that its
    actions ask for on average over their probabilities. Training draws actions."""
    rebalance_band: float = 0.05
    """A same-side order that moves exposure by less than this share of equity, or of the size that volatility gives, is
    not sent."""
    episode_steps: int = 256
    """Bars an account lives before it is truncated; a multiple of n_steps."""
    ruin_level: float = 0.1
    """Equity, as a fraction of the starting equity, at or below which an account is liquidated and terminated."""
    stop_loss: float = 0.0
    """Stop-loss distance as a fraction of the average entry price; 0 for none."""
    take_profit: float = 0.0
    """Take-profit distance as a fraction of the average entry price; 0 for none."""
    take_profit_gap: Literal["open", "limit"] = "open"
    """Fill of a take-profit that the open gaps through: at the open, or (pessimistic) at the limit."""
    fee: dict[str, float] = field(default_factory=dict)
    """Fee per side, as a fraction of the notional: CLASS FRACTION pairs over the defaults equity .001, crypto .001,
    fx .0001, or one number for every class."""
    spread: float = 0.0
    """Full bid-ask spread as a fraction of the price; a fill pays half of it."""
    slippage: float = 0.0
    """Slippage as a fraction of the price, always against us."""
    borrow: float = 0.0
    """Yearly borrow cost on short notional, accrued per bar."""
    costs: str | None = None
    """CSV or Parquet file of costs by symbol: symbol, half_spread or fee (a side), optionally borrow (a year)."""
    allow_short: tuple[str, ...] | None = None
    """Asset classes that may be sold short; by default those that say so themselves: equity and fx, not crypto."""


@dataclass(frozen=True)
class RewardConfig:
    """What is rewarded; never what is reported."""

    reward: str = "log_return"
    """Reward preset (v245, v33, log_return, differential_sharpe or a registered one); it also sets the default weights,
    gamma and entropy coefficients."""
    reward_weights: dict[str, float] = field(default_factory=dict)
    """COMPONENT WEIGHT pairs that replace the preset's weights one by one."""
    normalize_reward: bool = False
    """Divide the reward by the sum of the weights."""


@dataclass(frozen=True)
class AgentConfig:
    """The market encoder and the actor-critic trunk."""

    encoder: str = "tcn"
    """Market encoder: tcn (dilated causal convolutions), window_mlp (a flattened window), none (the current bar only),
    or a plugin's."""
    window: int = 64
    """Receptive field in bars of the tcn (a power of two) and the window_mlp encoders."""
    channels: int = 32
    """Width of the encoder."""
    trunk_width: int = 64
    """Width of the trunk's hidden layers."""
    trunk_layers: int = 2
    """Hidden layers of the trunk; the first joins market and account."""
    kernels: Literal["plain", "fused"] = "plain"
    """fused: on NVIDIA GPUs, the tcn encoder is one kernel forward and one backward, trunk and heads are another two.
    trunk_width must be 16, 32 or 64, and channels 16 or 32. Other devices, encoders and dropout take the plain path.
    Compiled for A100 and H100, but not yet run on either."""
    compute_dtype: Literal["float32", "bfloat16"] = "float32"
    """Matmul precision of the network; parameters, losses and accounts stay float32."""


@dataclass(frozen=True)
class PPOConfig:
    """The algorithm (Schulman et al. 2017)."""

    learning_rate: float = 3e-4
    """Peak Adam step size after warm-up."""
    gamma: float = 0.99
    """Discount per bar."""
    gae_lambda: float = 0.8
    """Lambda of generalized advantage estimation. Later bars are nearly all noise: at .95 that of nine hides what an
    action did, at .8 that of three."""
    advantages: Literal["gae", "counterfactual"] = "gae"
    """gae: of the sampled action; counterfactual: of every action, whose next account and reward are known exactly."""
    clip: float = 0.2
    """Clipping range of the policy ratio."""
    clip_value: float = 0.0
    """Clipping range of the value update; 0 for none."""
    value_weight: float = 0.5
    """Weight of the value loss."""
    entropy_start: float = 0.15
    """Entropy coefficient at the first update."""
    entropy_end: float = 0.005
    """Entropy coefficient from the end of the annealing on."""
    entropy_anneal: float = 0.6
    """Share of the updates over which the entropy coefficient falls linearly."""
    cost_anneal: float = 0.65
    """Share of the updates over which the costs of training rise linearly from none to their full size; validations
    always charge all of them. 0: full from the first."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW): every step shrinks all parameters by this times the learning rate."""
    dropout: float = 0.0
    """Share of the encoder's outputs and the trunk's hidden units that training drops, drawn for each path of a
    rollout; 0 for none. Validations drop none."""
    feature_noise: float = 0.0
    """Deviation of the Gaussian noise that training adds to every scaled feature, drawn for each path of a rollout; 0
    for none."""
    max_grad_norm: float = 0.5
    """Global gradient norm to clip at."""
    epochs: int = 4
    """Passes over a rollout."""
    minibatches: int = 4
    """Minibatches an epoch; each holds whole paths."""
    blocks: int = 1
    """Blocks of paths, of each of which a minibatch holds as many: devices divide blocks, and which paths share a
    minibatch does not depend on how many devices there are. With several devices by default 8."""
    normalize_advantages: bool = True
    """Scale advantages to zero mean and unit deviation in each minibatch."""
    target_kl: float = 0.0
    """Skip the rest of an update once the approximate KL passes this; 0 for never."""
    rollback_after: int = 3
    """Go back to the last good parameters after this many updates in a row with most gradients not finite; 0: never."""
    rollback_factor: float = 0.5
    """Factor of the learning rate at each such return; it is never raised again, and falls to 1/1024 at most."""


@dataclass(frozen=True)
class BudgetConfig:
    """How much, how often: a preset sets budgets, a device tier sets sizes."""

    n_envs: int = 2048
    """Environments: paths x lanes."""
    lanes: int = 32
    """Accounts that share a path."""
    n_steps: int = 32
    """Bars a rollout."""
    n_updates: int = 40
    """PPO updates."""
    env_steps: int = 0
    """Total env steps; when above 0 it sets n_updates from n_envs and n_steps (rounded up)."""
    passes: float = 0.0
    """Times that training visits each of its bars, on average; when above 0 it sets n_updates (rounded up) once the
    bars are read. All accounts of a path visit a bar together, as once."""
    validate_every: int = 5
    """Updates between validations; the first state and the last are always validated."""
    n_validations: int = 0
    """Number of validations after the first state's, spread evenly; when above 0 it sets validate_every."""
    choose_by: Literal["fitness", "portfolio_sharpe"] = "fitness"
    """What the best validation has the highest of: the pool's fitness, or the Sharpe ratio of the portfolio that is
    rebalanced daily."""
    early_stop: float = 0.0
    """Share of a walk-forward's training period, its newest bars, that is kept from training and played after every
    validate_every updates: a fold hands over the policy with the highest Sharpe ratio there, of the portfolio that is
    rebalanced daily. 0: the last policy. A training run has its validations for that."""
    flat_below: float = 0.0
    """Least probability that a policy's Sharpe ratio is above 0 for a fold of a walk-forward to hand it over, else the
    fold stays flat: after costs, of the portfolio that is rebalanced daily, on the bars that early_stop keeps (where it
    is deflated by the policies that they chose from), or without it on the training bars. 0: never."""
    seeds: int = 1
    """Policies trained in one program and averaged: an ensemble, which acts by the mean of its members'
    probabilities."""


@dataclass(frozen=True)
class StartConfig:
    """What a run begins with."""

    init_from: str | None = None
    """Folder of an earlier run, whose policy this one begins with; features, actions and sizes must be the same."""
    init_what: Literal["policy", "all"] = "policy"
    """policy: the parameters of the best validation; all: the last ones and the moments of the optimizer. The schedules
    begin anew."""


@dataclass(frozen=True)
class GateConfig:
    """What a policy must show before it is APPROVED or worth a REVIEW."""

    gate_fitness_approved: float = 0.70
    """Least validation fitness for APPROVED."""
    gate_fitness_review: float = 0.50
    """Least validation fitness for REVIEW."""
    gate_profit_factor_approved: float = 1.8
    """Least profit factor for APPROVED."""
    gate_profit_factor_review: float = 1.3
    """Least profit factor for REVIEW."""
    gate_consistency_approved: float = 0.85
    """Least share of time blocks with a gain for APPROVED."""
    gate_consistency_review: float = 0.65
    """Least share of time blocks with a gain for REVIEW."""
    gate_max_drawdown_approved: float = 0.08
    """Largest drawdown for APPROVED."""
    gate_max_drawdown_review: float = 0.15
    """Largest drawdown for REVIEW."""
    gate_min_trades: int = 100
    """Fewest closed trades for APPROVED, and for an infinite profit factor to count."""
    gate_trades_review: int = 30
    """Fewest closed trades for REVIEW: of 30 a win rate is known to 9 points (standard error), of 6 to 20."""
    gate_days_review: int = 90
    """Fewest days with decisions for REVIEW: a yearly Sharpe ratio of 90 trading days has a standard error of 1.7."""
    gate_excess_review: float = 0.0
    """Least net return over that of buy-and-hold at the same costs, as a fraction, for REVIEW; -10 asks for none."""
    gate_excess_rules_review: float = 0.0
    """Least Sharpe ratio, rebalanced daily, over that of the best rule (buy-and-hold is one) for REVIEW; -10 asks for
    none."""
    gate_excess_probability: float = 0.95
    """Least probability that the policy's mean log return is above buy-and-hold's for APPROVED; 0 asks for none."""
    gate_deflated_sharpe: float = 0.95
    """Least deflated Sharpe ratio (a probability) for APPROVED."""
    gate_overfit: float = 0.05
    """Flag a fitness more than this share under the highest of the run."""
    gate_always_hold: float = 0.70
    """Flag a policy that keeps its position on more than this share of decisions."""
    gate_always_trade: float = 0.50
    """Flag a policy whose orders fill on more than this share of bars."""
    gate_one_sided: float = 0.95
    """Flag a policy that is on one side in more than this share of its bars in the market."""


@dataclass(frozen=True)
class Config:
    """Everything that decides what a run computes."""

    preset: str = "quick_test"
    """What to start from: quick_test, standard, production or extended, which are budgets; auto, which asks the device
    for sizes; or trend, for daily bars of many instruments."""
    seed: int = 0
    """Seed of parameters, paths and actions."""
    data: DataConfig = DataConfig()
    features: FeatureConfig = FeatureConfig()
    env: EnvConfig = EnvConfig()
    reward: RewardConfig = RewardConfig()
    agent: AgentConfig = AgentConfig()
    ppo: PPOConfig = PPOConfig()
    budget: BudgetConfig = BudgetConfig()
    start: StartConfig = StartConfig()
    gate: GateConfig = GateConfig()

    @property
    def n_paths(self) -> int:
        return self.budget.n_envs // self.budget.lanes

    @property
    def batch_steps(self) -> int:
        """Env steps of one PPO update."""
        return self.budget.n_envs * self.budget.n_steps

    def passes_over(self, decisions: int, updates: int) -> float:
        """Times that `updates` updates visit each of `decisions` training bars, on average.

        A path visits a bar once for all of its lanes, whose accounts differ and whose market does not.
        """
        return updates * self.n_paths * self.budget.n_steps / decisions

    @property
    def gradient_steps(self) -> int:
        """Optimizer steps of one PPO update."""
        return self.ppo.epochs * self.ppo.minibatches

    @property
    def segments(self) -> tuple[int, ...]:
        """Updates before each validation after the first. They sum to n_updates, and none is above validate_every.

        A number of validations is kept: 30 of 40 updates are 20 after one update and 10 after two. An interval is kept
        too, but for the last segment, which may be shorter.
        """
        n_updates, wanted = self.budget.n_updates, self.budget.n_validations
        if wanted > 0:
            ends = [i * n_updates // wanted for i in range(wanted + 1)]
            return tuple(end - begin for begin, end in itertools.pairwise(ends))
        full, rest = divmod(n_updates, self.budget.validate_every)
        return (self.budget.validate_every,) * full + ((rest,) if rest else ())


GROUPS: dict[str, Any] = {
    f.name: type(f.default) for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.default)
}
FIELD_GROUP: dict[str, str] = {f.name: g for g, cls in GROUPS.items() for f in dataclasses.fields(cls)}
FILES = frozenset({"data", "costs", "extra_features", "corporate_actions"})
"""Fields that name files, whose content is compared by its hash, wherever it lies."""


def to_dict(config: Config) -> dict[str, Any]:
    """Nested plain dict of `config`, tuples as lists, ready for YAML."""

    def plain(x: Any) -> Any:
        if isinstance(x, dict):
            return {k: plain(v) for k, v in x.items()}
        return [plain(v) for v in x] if isinstance(x, (tuple, list)) else x

    nested: dict[str, Any] = plain(dataclasses.asdict(config))
    return nested


def from_dict(raw: Any, where: str = "config") -> Config:
    """`Config` from a nested dict as `to_dict` writes it; unknown names raise `ConfigError` with the nearest ones."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: expected a mapping of config groups, got {type(raw).__name__}")
    top = {f.name for f in dataclasses.fields(Config)}
    values: dict[str, Any] = {}
    for key, value in raw.items():
        if key not in top:
            raise ConfigError(f"{where}: unknown group {key!r}; {_meant(key, top)}")
        if key in GROUPS:
            values[key] = group_from_dict(key, value, where)
        else:
            values[key] = _coerce(value, get_type_hints(Config)[key], f"{where}: {key}")
    return Config(**values)


def _meant(key: Any, names: Iterable[str]) -> str:
    """Where a field belongs that stands in the wrong place; else the nearest of the names that may stand there."""
    if key in FIELD_GROUP:
        return f"{key} is a field of the group {FIELD_GROUP[key]}"
    return nearest(str(key), names)


def group_from_dict(group: str, raw: Any, where: str) -> Any:
    """One config group from a mapping; unknown fields and values of the wrong type raise `ConfigError`."""
    if not isinstance(raw, dict):
        raise ConfigError(f"{where}: group {group!r} must be a mapping, got {type(raw).__name__}")
    cls = GROUPS[group]
    hints = get_type_hints(cls)
    values = {}
    for key, value in raw.items():
        if key not in hints:
            raise ConfigError(f"{where}: unknown field {group}.{key}; {_meant(key, FIELD_GROUP)}")
        values[key] = _coerce(value, hints[key], f"{where}: {group}.{key}")
    return cls(**values)


def coerce_fields(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Flat fields as the types of the schema, lists as tuples; unknown ones raise `ConfigError` with the nearest."""
    found = {}
    for name, value in values.items():
        if name not in FIELD_GROUP and name != "seed":
            raise ConfigError(f"{where}: unknown field {name!r}; {nearest(name, [*FIELD_GROUP, 'seed'])}")
        cls = GROUPS[FIELD_GROUP[name]] if name in FIELD_GROUP else Config
        found[name] = _coerce(value, get_type_hints(cls)[name], f"{where}: {name}")
    return found


def _coerce(value: Any, hint: Any, where: str) -> Any:
    """`value` as the annotated type `hint` (YAML reads 3e-4 as a string and tuples as lists)."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value in args:
            return value
        raise ConfigError(f"{where}: unknown choice {value!r}; {nearest(str(value), args)}")
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_coerce(v, args[0], where) for v in value)
    if origin is dict and isinstance(value, dict):
        return {_coerce(k, args[0], where): _coerce(v, args[1], where) for k, v in value.items()}
    if type(None) in args:
        return None if value is None else _coerce(value, args[0], where)
    if hint is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    elif origin is None and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    shown = repr(value)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    raise ConfigError(f"{where} must be of type {(origin or hint).__name__}, got {shown}")
