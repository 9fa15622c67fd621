"""The network of an exported policy, by what its folder computes it with: NumPy, onnxruntime or jax.

The first is written down here, the others are asked for only where the folder is theirs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

FLOAT = np.float32
MASKED = FLOAT(-1e9)
FILES = {"numpy": "weights.npz", "onnx": "policy.onnx", "stablehlo": "policy.stablehlo"}

Network = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Windows (N, R, F), observations (N, A) and masks (N, K) to log-probabilities (N, K) and values (N,)."""


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, FLOAT(0))


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def encode(w: Mapping[str, np.ndarray], kind: str, window: np.ndarray) -> np.ndarray:
    """What the encoder makes of windows (N, R, F): (N, D)."""
    if kind == "none":
        return window[:, -1]
    if kind == "window_mlp":
        flat = window.reshape(len(window), -1)
        return relu(flat @ w["encoder/kernel"].reshape(flat.shape[1], -1) + w["encoder/bias"])
    x: np.ndarray = window @ w["encoder/embed/kernel"] + w["encoder/embed/bias"]
    layer = 0
    while f"encoder/layers/{layer}/kernel" in w:
        dilation = 1 << layer
        past, now = x[:, :-dilation], x[:, dilation:]
        both = np.concatenate([past, now], axis=-1)
        kernel, bias = (w[f"encoder/layers/{layer}/{part}"] for part in ("kernel", "bias"))
        x = (now + relu(both @ kernel + bias)) * FLOAT(0.5**0.5)
        layer += 1
    return x[:, -1]


def act(
    w: Mapping[str, np.ndarray], kind: str, window: np.ndarray, observation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, K) and values (N,) of one network."""
    market = encode(w, kind, window) @ w["market/kernel"] + w["market/bias"]
    x = relu(market + observation @ w["account/kernel"])
    layer = 0
    while f"hidden/{layer}/kernel" in w:
        x = relu(x @ w[f"hidden/{layer}/kernel"] + w[f"hidden/{layer}/bias"])
        layer += 1
    logits = x @ w["policy_head/kernel"] + w["policy_head/bias"]
    return logits, (x @ w["value_head/kernel"] + w["value_head/bias"])[:, 0]


def numpy_network(path: Path, kind: str) -> Network:
    """The network by NumPy; weights have an axis of members in front."""
    with np.load(path, allow_pickle=False) as file:
        weights = {name: file[name] for name in file.files}
    members = len(weights["market/bias"])

    def run(window: np.ndarray, observation: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        each, values = [], []
        for m in range(members):
            logits, value = act({name: x[m] for name, x in weights.items()}, kind, window, observation)
            each.append(log_softmax(np.where(mask, logits, MASKED)))
            values.append(value)
        log_probs, value = np.stack(each), np.asarray(np.mean(values, axis=0, dtype=FLOAT))
        if members == 1:
            return log_probs[0], value
        most = log_probs.max(axis=0)  # the mean of the members' probabilities
        return most + np.log(np.exp(log_probs - most).sum(axis=0)) - FLOAT(math.log(members)), value

    return run


def onnx_network(path: Path) -> Network:
    """The network by onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def run(window: np.ndarray, observation: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_probs, value = session.run(None, {"window": window, "observation": observation, "mask": mask})
        return log_probs, value

    return run


def stablehlo_network(path: Path) -> Network:
    """The network by jax.export."""
    from jax import export

    exported = export.deserialize(bytearray(path.read_bytes()))

    def run(window: np.ndarray, observation: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = [exported.call(*row) for row in zip(window, observation, mask, strict=True)]
        return np.stack([np.asarray(r[0]) for r in rows]), np.stack([np.asarray(r[1]) for r in rows])

    return run


def load_network(path: Path, form: str, encoder: str) -> Network:
    """The network of a folder's file, by its format."""
    if form == "numpy":
        return numpy_network(path, encoder)
    return onnx_network(path) if form == "onnx" else stablehlo_network(path)
