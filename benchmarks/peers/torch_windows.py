"""The PyTorch way, rebuilt with care: vectorised accounts with jaxppo's arithmetic, a window stored every step.

What a careful author would do: one tensor a field, the env step and the loss compiled, windows copied as contiguous
rows of an overlapping view, a preallocated rollout, fused Adam. Runs on CUDA where there is one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.peers import settings
from benchmarks.peers.settings import Market, Peer, Setting, random_market

N_ACCOUNT = 8


class Accounts(NamedTuple):
    """(N,) each; as jaxppo's `AccountState`, without the compensated sum."""

    units: Tensor
    mark: Tensor
    equity: Tensor
    peak: Tensor
    average_cost: Tensor
    stop: Tensor
    take_profit: Tensor
    trade_pnl: Tensor
    bars_held: Tensor
    trades: Tensor
    wins: Tensor


class Bars(NamedTuple):
    """The bar after each decision: (N,) each."""

    open: Tensor
    high: Tensor
    low: Tensor
    close: Tensor


def open_accounts(n: int, device: str = "cpu") -> Accounts:
    zero, one = torch.zeros(n, device=device), torch.ones(n, device=device)
    return Accounts(zero, zero, one, one, zero, zero, zero, zero, zero, zero, zero)


def _order(a: Accounts, action: Tensor, price: Tensor) -> tuple[Accounts, Tensor, Tensor]:
    """Fill at the open: hold, +1 or -1 of equity. Returns the accounts, closed round trips and their wins."""
    fee = settings.FEE
    equity = a.equity + a.units * (price - a.mark)
    notional = a.units * price
    exposure = torch.where(equity > 0, notional / torch.where(equity > 0, equity, 1.0), 0.0)
    target = torch.where(action == 1, 1.0, -1.0)
    within = (target * exposure > 0) & ((target - exposure).abs() < 0.05)
    keep = (action == 0) | within | (equity <= settings.RUIN)
    gap = target * equity - notional
    order = gap / (1.0 + target * fee * gap.sign())
    units = torch.where(keep, a.units, target * (equity - fee * order.abs()) / price)

    order = units - a.units
    size, held = order.abs(), a.units.abs()
    paid = fee * size * price
    reducing = a.units * order < 0
    closing = torch.where(reducing, torch.minimum(size, held), 0.0)
    opened = size - closing > 0
    realised = a.units.sign() * closing * (price - a.average_cost)
    closed = reducing & (size >= held)
    paid_closing = fee * closing * price
    won = closed & (a.trade_pnl + realised - paid_closing > 0)
    entering = opened & ((a.units == 0) | closed)
    adding = opened & ~entering
    share = size / torch.where(adding, units.abs(), 1.0)
    blended = a.average_cost + (price - a.average_cost) * share
    cost = torch.where(adding, blended, torch.where(entering, price, a.average_cost))
    cost = torch.where(units == 0, 0.0, cost)
    side = units.sign()
    pnl = torch.where(entering, paid_closing - paid, a.trade_pnl + realised - paid)
    after = a._replace(
        units=units,
        mark=price,
        equity=equity - paid,
        average_cost=cost,
        stop=torch.where(opened, cost * (1.0 - side * settings.STOP_LOSS), a.stop),
        take_profit=torch.where(opened, cost * (1.0 + side * settings.TAKE_PROFIT), a.take_profit),
        trade_pnl=torch.where(units == 0, 0.0, pnl),
        bars_held=torch.where((units == 0) | entering, 0.0, a.bars_held),
    )
    return after, closed.float(), won.float()


def _exit(a: Accounts, bar: Bars) -> tuple[Accounts, Tensor, Tensor, Tensor]:
    """Liquidation, stop-loss, take-profit, in that order. Returns accounts, fired, won and liquidated."""
    long, holding = a.units > 0, a.units != 0
    level = a.mark - (a.equity - settings.RUIN) / torch.where(holding, a.units, 1.0)
    adverse, favourable = torch.where(long, bar.low, bar.high), torch.where(long, bar.high, bar.low)
    liquidated = holding & torch.where(long, adverse <= level, adverse >= level)
    slack = 2.0 * torch.finfo(torch.float32).eps
    above, below = 1.0 + slack, 1.0 - slack
    stopped = holding & torch.where(long, adverse <= a.stop * above, adverse >= a.stop * below)
    taken = holding & torch.where(long, favourable >= a.take_profit * below, favourable <= a.take_profit * above)
    level = torch.where(liquidated, level, a.stop)
    worse = torch.where(long, torch.minimum(bar.open, level), torch.maximum(bar.open, level))
    better = torch.where(long, torch.maximum(bar.open, a.take_profit), torch.minimum(bar.open, a.take_profit))
    price = torch.where(liquidated | stopped, worse, better)
    fired = liquidated | stopped | taken
    price = torch.where(fired, price, bar.open)
    units = torch.where(fired, a.units, 0.0)
    paid = settings.FEE * units.abs() * price
    won = fired & (a.trade_pnl + units * (price - a.average_cost) - paid > 0)
    after = a._replace(
        units=a.units - units,
        mark=a.mark,
        equity=a.equity + units * (price - a.mark) - paid,
        average_cost=torch.where(fired, 0.0, a.average_cost),
        trade_pnl=torch.where(fired, 0.0, a.trade_pnl),
        bars_held=torch.where(fired, 0.0, a.bars_held),
    )
    return after, fired.float(), won.float(), liquidated


def step_accounts(a: Accounts, action: Tensor, bar: Bars) -> tuple[Accounts, Tensor, Tensor]:
    """One bar of N accounts: the accounts at the close, the reward and who is ruined."""
    ordered, closed, won = _order(a, action, bar.open)
    exited, fired, exit_won, liquidated = _exit(ordered, bar)
    equity = exited.equity + exited.units * (bar.close - exited.mark)
    after = exited._replace(
        equity=equity,
        mark=bar.close,
        peak=torch.maximum(a.peak, equity),
        bars_held=exited.bars_held + (exited.units != 0),
        trades=a.trades + closed + fired,
        wins=a.wins + won + exit_won,
    )
    reward = settings.REWARD_SCALE * torch.log(torch.clamp(equity / a.equity, min=1e-6))
    return after, reward, liquidated | (equity <= settings.RUIN)


def observe_accounts(a: Accounts, close: Tensor) -> Tensor:
    """(N, 8) account features, as jaxppo's `observe_account`."""
    held = a.units != 0
    entry = torch.where(held, a.average_cost, 1.0)
    unrealised = torch.where(held, a.units.sign() * (close / entry - 1.0), 0.0)
    exposure = torch.where(a.equity > 0, a.units * close / torch.where(a.equity > 0, a.equity, 1.0), 0.0)

    def distance(level: Tensor, width: float) -> Tensor:
        return torch.where(held, torch.clamp((close - level).abs() / (entry * width), 0.0, 4.0), 0.0)

    return torch.stack(
        [
            torch.tanh(10.0 * (a.equity - 1.0)),
            torch.where(a.trades > 0, a.wins / torch.clamp(a.trades, min=1.0), 0.5),
            torch.clamp(1.0 - a.equity / a.peak, 0.0, 1.0),
            exposure,
            torch.tanh(10.0 * unrealised),
            torch.log1p(a.bars_held) / math.log1p(256),
            distance(a.stop, settings.STOP_LOSS),
            distance(a.take_profit, settings.TAKE_PROFIT),
        ],
        dim=-1,
    )


class Net(nn.Module):
    """Two hidden layers over the flattened window and the account, and two heads."""

    def __init__(self, n_in: int, width: int):
        super().__init__()
        self.first, self.second = nn.Linear(n_in, width), nn.Linear(width, width)
        self.policy, self.value = nn.Linear(width, settings.N_ACTIONS), nn.Linear(width, 1)
        for layer, gain in ((self.first, 2**0.5), (self.second, 2**0.5), (self.policy, 0.01), (self.value, 1.0)):
            nn.init.orthogonal_(layer.weight, gain)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.log_softmax(self.policy(x), dim=-1), self.value(x)[..., 0]


def ppo_loss(net: Net, seen: Tensor, action: Tensor, old: Tensor, advantage: Tensor, target: Tensor) -> Tensor:
    """The clipped surrogate, value and entropy losses of a minibatch."""
    log_probs, value = net(seen)
    ratio = torch.exp(log_probs.gather(1, action[:, None])[:, 0] - old)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    clipped = torch.clamp(ratio, 1.0 - settings.CLIP, 1.0 + settings.CLIP)
    surrogate = -torch.minimum(ratio * advantage, clipped * advantage).mean()
    critic = 0.5 * torch.square(value - target).mean()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean()
    return surrogate + settings.VALUE_WEIGHT * critic - settings.ENTROPY * entropy


@dataclass
class Rollout:
    """Preallocated (T, N) buffers."""

    seen: Tensor  # (T, N, D)
    action: Tensor
    log_prob: Tensor
    value: Tensor
    reward: Tensor
    done: Tensor


class Trainer:
    """N accounts on one market, their rollout, their network."""

    def __init__(self, setting: Setting, market: Market, device: str):
        self.setting, self.device = setting, device
        features = torch.from_numpy(np.ascontiguousarray(market.features)).to(device)
        n, window, f = setting.n_bars, setting.window, setting.n_features
        # Row t is the flattened window that ends at bar t + window - 1: contiguous, so a window is one copy.
        self.windows = features.as_strided((n - window + 1, window * f), (f, 1))
        self.bars = Bars(
            *(torch.from_numpy(x).to(device) for x in (market.open, market.high, market.low, market.close))
        )
        n_in = window * f + N_ACCOUNT
        self.net = Net(n_in, setting.width).to(device)
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), settings.LEARNING_RATE, eps=settings.ADAM_EPS, fused=True
        )
        shape = (setting.n_steps, setting.n_envs)
        real = [torch.zeros(shape, device=device) for _ in range(4)]
        action = torch.zeros(shape, dtype=torch.long, device=device)
        self.rollout = Rollout(torch.zeros((*shape, n_in), device=device), action, *real)
        self.accounts = open_accounts(setting.n_envs, device)
        self.t = self._starts()
        self.age = torch.zeros_like(self.t)
        self.env_step = torch.compile(self._env_step)
        self.loss = torch.compile(ppo_loss)

    def _starts(self) -> Tensor:
        low, high = self.setting.window - 1, self.setting.n_bars - 1
        return torch.randint(low, high, (self.setting.n_envs,), device=self.device)

    def _env_step(
        self, a: Accounts, t: Tensor, age: Tensor, starts: Tensor, action: Tensor
    ) -> tuple[Accounts, Tensor, Tensor, Tensor, Tensor]:
        """Step and auto-reset."""
        bar = Bars(*(x[t + 1] for x in self.bars))
        after, reward, ruined = step_accounts(a, action, bar)
        t, age = t + 1, age + 1
        done = ruined | (age >= self.setting.episode_steps) | (t >= self.setting.n_bars - 1)
        fresh = open_accounts(t.shape[0], self.device)
        accounts = Accounts(*(torch.where(done, new, old) for new, old in zip(fresh, after, strict=True)))
        return accounts, torch.where(done, starts, t), torch.where(done, 0, age), reward, done.float()

    def _look(self, out: Tensor) -> None:
        """The observation of every env, written where it is stored."""
        width = self.windows.shape[1]
        out[:, :width] = self.windows[self.t - (self.setting.window - 1)]
        out[:, width:] = observe_accounts(self.accounts, self.bars.close[self.t])

    @torch.no_grad()
    def collect(self) -> Tensor:
        """Fill the rollout; returns the values of the last states."""
        r = self.rollout
        for i in range(self.setting.n_steps):
            self._look(r.seen[i])
            log_probs, r.value[i] = self.net(r.seen[i])
            uniform = torch.rand((self.setting.n_envs, 1), device=self.device)
            action = (uniform >= log_probs.exp().cumsum(-1)[:, :-1]).sum(-1)
            r.action[i], r.log_prob[i] = action, log_probs.gather(1, action[:, None])[:, 0]
            self.accounts, self.t, self.age, r.reward[i], r.done[i] = self.env_step(
                self.accounts, self.t, self.age, self._starts(), action
            )
        last = torch.empty_like(r.seen[0])
        self._look(last)
        return self.net(last)[1]

    def advantages(self, last: Tensor) -> Tensor:
        """GAE, (T, N)."""
        r, out = self.rollout, torch.empty_like(self.rollout.reward)
        following, next_value = torch.zeros_like(last), last
        for i in reversed(range(self.setting.n_steps)):
            go = 1.0 - r.done[i]
            delta = r.reward[i] + settings.GAMMA * next_value * go - r.value[i]
            following = delta + settings.GAMMA * settings.GAE_LAMBDA * go * following
            out[i], next_value = following, r.value[i]
        return out

    def update(self) -> None:
        """One PPO update."""
        advantage = self.advantages(self.collect()).flatten()
        r = self.rollout
        seen = r.seen.flatten(0, 1)
        action, old, target = r.action.flatten(), r.log_prob.flatten(), advantage + r.value.flatten()
        for _ in range(self.setting.epochs):
            order = torch.randperm(self.setting.batch_steps, device=self.device)
            for index in order.chunk(self.setting.minibatches):
                loss = self.loss(self.net, seen[index], action[index], old[index], advantage[index], target[index])
                self.optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), settings.MAX_GRAD_NORM)
                self.optimizer.step()


def make_peer(setting: Setting) -> Peer:
    """Whole PPO updates in PyTorch."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    trainer = Trainer(setting, random_market(setting.n_bars, setting.n_features), device)

    def unit() -> int:
        trainer.update()
        if device == "cuda":
            torch.cuda.synchronize()
        return setting.batch_steps

    held = f"window of {setting.window} x {setting.n_features} into 2 layers of {setting.width}"
    return Peer(unit, f"{held}, {device}, env and loss compiled")
