"""Action tables: what each action asks for, what is masked, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import BRACKETED

from jaxppo.config.schema import EnvConfig
from jaxppo.env.actions import ActionTable, action_mask, action_table, target_exposure
from jaxppo.errors import ConfigError

YES, NO = jnp.bool_(True), jnp.bool_(False)


def targets(table: ActionTable, exposure: float, allow_short=YES, max_exposure=1.0) -> dict[str, float | None]:
    """What every action asks for at `exposure`: label to target exposure, None to keep."""
    action = jnp.arange(table.n_actions, dtype=jnp.int32)
    target, keep = target_exposure(table, action, jnp.full(table.n_actions, exposure), allow_short, max_exposure)
    assert target.dtype == jnp.float32
    rows = zip(table.labels, target.tolist(), keep.tolist(), strict=True)
    return {label: None if kept else pytest.approx(t, abs=1e-6) for label, t, kept in rows}


def masked(table: ActionTable, exposure: float, allow_short) -> set[str]:
    mask = action_mask(table, jnp.float32(exposure), allow_short)
    assert mask.shape == (table.n_actions,)
    assert mask.any()
    return {label for label, ok in zip(table.labels, mask.tolist(), strict=True) if not ok}


def test_hold_buy_sell_goes_all_the_way():
    table = action_table(EnvConfig(actions="hold_buy_sell", max_exposure=2.0))
    for exposure in (-2.0, 0.0, 0.7):
        assert targets(table, exposure, max_exposure=2.0) == {"hold": None, "buy": 2.0, "sell": -2.0}


def test_sized_adds_to_the_position():
    table = action_table(EnvConfig(actions="sized"))
    assert targets(table, 0.1) == {
        "hold": None,
        "buy_25": 0.35,
        "buy_50": 0.6,
        "buy_75": 0.85,
        "sell_25": -0.15,
        "sell_50": -0.4,
        "sell_75": -0.65,
    }


def test_sized_is_clipped_to_the_largest_exposure():
    table = action_table(EnvConfig(actions="sized"))
    assert targets(table, 0.6)["buy_25"] == 0.85
    assert targets(table, 0.6)["buy_75"] == 1.0
    assert targets(table, -0.6)["sell_75"] == -1.0
    assert targets(table, -0.6, max_exposure=3.0)["sell_75"] == -1.35
    # A losing short outgrows the limit; the next order brings it back.
    assert targets(table, -1.4)["buy_25"] == -1.0


def test_sized_close_can_also_go_flat():
    table = action_table(EnvConfig(actions="sized_close"))
    assert table.labels[:-1] == action_table(EnvConfig(actions="sized")).labels
    assert table.n_actions == 8
    for exposure in (-0.3, 0.0, 1.0):
        assert targets(table, exposure)["close"] == 0.0
    assert targets(table, 0.5)["sell_75"] == -0.25


def test_targets_are_absolute():
    table = action_table(EnvConfig(actions="targets", targets=(-1.0, 0.0, 0.5)))
    for exposure in (-1.0, 0.0, 0.9):
        assert targets(table, exposure) == {"target_-1": -1.0, "target_+0": 0.0, "target_+0.5": 0.5}


def test_selling_a_quarter_of_a_quarter_means_flat():
    table = action_table(EnvConfig(actions="sized"))
    action = jnp.int32(table.labels.index("sell_25"))
    for exposure in (
        0.25,
        np.nextafter(np.float32(0.25), np.float32(1)),
        np.nextafter(np.float32(0.25), np.float32(0)),
    ):
        target, _ = target_exposure(table, action, jnp.float32(exposure), YES, 1.0)
        assert float(target) == 0.0


@pytest.mark.parametrize("actions", ["hold_buy_sell", "sized", "sized_close", "targets"])
def test_targets_stop_at_flat_where_shorts_are_not_allowed(actions):
    table = action_table(EnvConfig(actions=actions))
    for exposure in (0.0, 0.4, 1.0):
        free, bound = targets(table, exposure), targets(table, exposure, NO)
        for label, target in free.items():
            want = target if target is None else max(target.expected, 0.0)
            assert bound[label] == (None if want is None else pytest.approx(want, abs=1e-6))
    assert any(t is not None and t.expected < 0 for t in targets(table, 0.4).values())


def test_selling_is_masked_when_flat_and_no_short_is_allowed():
    assert masked(action_table(BRACKETED), 0.0, NO) == {"sell"}
    assert masked(action_table(EnvConfig(actions="sized_close")), 0.0, NO) == {"sell_25", "sell_50", "sell_75"}
    assert masked(action_table(EnvConfig(actions="targets")), 0.0, NO) == {"target_-1"}


@pytest.mark.parametrize("actions", ["hold_buy_sell", "sized", "sized_close", "targets"])
def test_nothing_is_masked_when_long_or_when_shorts_are_allowed(actions):
    table = action_table(EnvConfig(actions=actions))
    assert masked(table, 0.5, NO) == set()
    for exposure in (-1.0, 0.0, 1.0):
        assert masked(table, exposure, YES) == set()


def test_mask_of_a_batch():
    exposure = jnp.array([[0.0, 0.5, 0.0], [0.3, 0.0, -0.2]])
    allow_short = jnp.array([[False, False, True], [False, True, True]])
    mask = action_mask(action_table(BRACKETED), exposure, allow_short)
    assert mask.shape == (2, 3, 3)
    assert mask[..., 0].all()
    assert mask[..., 1].all()
    assert mask[..., 2].tolist() == [[False, True, True], [True, True, True]]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ((), "at least two different"),
        ((1.0,), "at least two different"),
        ((0.0, 1.0, 1.0), "at least two different"),
        ((0.0, 1.5), "1.5 is beyond max_exposure 1.0"),
        ((-2.0, 0.0), "-2.0 is beyond max_exposure 1.0"),
        ((0.0, float("nan")), "nan is beyond"),
        ((0.0, float("inf")), "inf is beyond"),
        # Flat, with no short allowed, no action would be left.
        ((-1.0, -0.5), "short"),
    ],
)
def test_targets_that_cannot_be_traded_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words) as error:
        action_table(EnvConfig(actions="targets", targets=wrong))
    assert str(error.value).startswith("targets: ")
