"""How sure a policy is, and whether the decisions that it is sure of earn more. NumPy, on the host."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

BUCKETS = 5
BINS = 20
Z_90 = 1.6449  # of a normal distribution: 90 % lie within +- this many deviations


class Decided(NamedTuple):
    """D decisions, one entry each."""

    confidence: np.ndarray  # probability of the most probable action
    entropy: np.ndarray  # bits
    share: np.ndarray  # of the most that the allowed actions could have, in [0, 1]; nan where only one was allowed
    earned: np.ndarray  # net return of the account on the bar after it
    held: np.ndarray  # bool: a position was held on that bar
    day: np.ndarray  # int, the UTC date of that bar
    agreeing: np.ndarray | None  # share of an ensemble's members whose own most probable action was the ensemble's


def gather(
    log_probs: np.ndarray,
    allowed: np.ndarray,
    earned: np.ndarray,
    held: np.ndarray,
    day: np.ndarray,
    agreeing: np.ndarray | None = None,
) -> Decided:
    """Decisions (D,) from their log-probabilities (D, K), and how many actions were allowed (D,)."""
    p = np.exp(log_probs.astype(np.float64))
    bits = -np.where(p > 0, p * np.log2(np.maximum(p, 1e-300)), 0.0).sum(-1)
    most = np.log2(np.maximum(allowed, 1))
    share = np.divide(bits, most, out=np.full(len(bits), np.nan), where=most > 0)
    return Decided(p.max(-1), bits, share, earned.astype(np.float64), held, day, agreeing)


def clustered_mean(x: np.ndarray, day: np.ndarray) -> tuple[float, float]:
    """Mean of `x` and its standard error, those of one day counting as one draw, for symbols move together.

    Example: three days with one value each have the usual standard error but for the factor n / (n - 1).
    """
    if len(x) == 0:
        return float("nan"), float("nan")
    mean = float(x.mean())
    _, which = np.unique(day, return_inverse=True)
    of_day = np.bincount(which, x - mean)
    days = len(of_day)
    if days < 2:
        return mean, float("nan")
    return mean, float(np.sqrt((of_day**2).sum() * days / (days - 1))) / len(x)


def _interval(x: np.ndarray, day: np.ndarray) -> list[float]:
    mean, error = clustered_mean(x, day)
    return [mean - Z_90 * error, mean + Z_90 * error]


def buckets(of: Decided, n: int = BUCKETS) -> list[dict[str, Any]]:
    """Decisions by how sure they were, least first, in `n` parts of equal number as far as equal ones let them be.

    Each has its `confidence` (from, to, mean), `decisions`, `earned` (mean net return of the next bar) with its 90 %
    interval, `held` (those with a position on that bar) and `hit_rate`, the share of those that gained net of costs,
    with its interval.
    """
    edges = np.unique(np.quantile(of.confidence, np.arange(1, n) / n))
    bucket = np.searchsorted(edges, of.confidence, side="right")
    rows = []
    for i in np.unique(bucket):
        at = bucket == i
        held = at & of.held
        gained = (of.earned[held] > 0).astype(np.float64)
        rows.append(
            {
                "from": float(of.confidence[at].min()),
                "to": float(of.confidence[at].max()),
                "confidence": float(of.confidence[at].mean()),
                "decisions": int(at.sum()),
                "earned": float(of.earned[at].mean()),
                "earned_90": _interval(of.earned[at], of.day[at]),
                "held": int(held.sum()),
                "hit_rate": float(gained.mean()) if held.any() else float("nan"),
                "hit_rate_90": _interval(gained, of.day[held]),
            }
        )
    return rows


def surest_less_unsurest(of: Decided, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean net return of the next bar of the surest bucket less that of the least sure, with its 90 % interval.

    Both are of the same days, so the difference is that of influences: x / share of its bucket, signed.
    """
    if len(rows) < 2:
        return {"difference": float("nan"), "interval_90": [float("nan"), float("nan")]}
    sure, unsure = of.confidence >= rows[-1]["from"], of.confidence <= rows[0]["to"]
    difference = rows[-1]["earned"] - rows[0]["earned"]
    influence = sure * (of.earned - rows[-1]["earned"]) / sure.mean()
    influence -= unsure * (of.earned - rows[0]["earned"]) / unsure.mean()
    _, error = clustered_mean(influence, of.day)
    return {"difference": difference, "interval_90": [difference - Z_90 * error, difference + Z_90 * error]}


def _histogram(x: np.ndarray, low: float) -> dict[str, list[float]]:
    known = np.clip(x[~np.isnan(x)], low, 1.0)  # rounded probabilities may lie a little beyond
    count, edges = np.histogram(known, bins=BINS, range=(low, 1.0))
    return {"edges": edges.tolist(), "decisions": count.tolist()}


def _spread(x: np.ndarray) -> dict[str, float]:
    known = x[~np.isnan(x)]
    if len(known) == 0:
        return dict.fromkeys(("mean", "p5", "p50", "p95"), float("nan"))
    return {"mean": float(known.mean()), **{f"p{q}": float(np.percentile(known, q)) for q in (5, 50, 95)}}


def summarize_confidence(of: Decided, n_actions: int) -> dict[str, Any]:
    """How sure the decisions were, and what the sure ones earned; plain values for a file.

    Args:
      of: the decisions.
      n_actions: K.
    """
    rows = buckets(of)
    found: dict[str, Any] = {
        "decisions": len(of.confidence),
        "confidence": {**_spread(of.confidence), **_histogram(of.confidence, 1.0 / n_actions)},
        "entropy_bits": _spread(of.entropy),
        "entropy_share": {**_spread(of.share), **_histogram(of.share, 0.0)},
        "buckets": rows,
        "surest_less_least_sure": surest_less_unsurest(of, rows),
    }
    if of.agreeing is not None:
        found["agreement"] = {**_spread(of.agreeing), "unanimous": float((of.agreeing == 1.0).mean())}
    return found
