"""A policy's network in the formats that it is exported in: weights by name, an ONNX graph, or StableHLO."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxppo.agent.encoders import receptive_field
from jaxppo.agent.policy import make_agent
from jaxppo.errors import ConfigError
from jaxppo.live.decision import Policy

ENCODERS = ("tcn", "window_mlp", "none")
"""Whose arithmetic is written down in other formats than StableHLO, which takes any."""
PLATFORMS = ("cpu", "cuda")
_MASKED = np.float32(-1e9)


def weights(policy: Policy) -> dict[str, np.ndarray]:
    """The parameters by name, such as encoder/layers/0/kernel: float32 with an axis of members in front.

    Raises:
      ConfigError: a network that NumPy and ONNX cannot compute as it was trained.
    """
    config = policy.info.config.agent
    if config.encoder not in ENCODERS:
        raise ConfigError(f"--format: encoder {config.encoder!r} is a plugin's, which only stablehlo can hold")
    if config.compute_dtype != "float32":
        raise ConfigError(
            f"--format: the policy computes in {config.compute_dtype}, which NumPy and ONNX have in other bits; only"
            " stablehlo keeps them"
        )
    members = policy.params if policy.params.ndim == 2 else jnp.expand_dims(policy.params, 0)
    tree = jax.device_get(jax.vmap(policy.agent.unravel)(members))
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf) for path, leaf in leaves}


def numpy_file(policy: Policy) -> bytes:
    """The weights as an .npz file."""
    file = io.BytesIO()
    np.savez(file, **weights(policy))  # type: ignore[arg-type]
    return file.getvalue()


def stablehlo_file(policy: Policy) -> bytes:
    """The network of one window, as `jax.export` serialises it, with the parameters in it."""
    spec, params = policy.agent.spec, policy.params
    # A fused kernel is no StableHLO: jax.export refuses it, and on no other jax would it be sure to run.
    agent = make_agent(spec._replace(config=replace(spec.config, kernels="plain")))

    def network(window: jax.Array, observation: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        market = agent.encode(params, jnp.expand_dims(window, 0))[0, -1]
        found, value = agent.act(params, market, jnp.expand_dims(observation, 0), jnp.expand_dims(mask, 0))
        return found.log_probs[0], value[0]

    shapes = (
        jax.ShapeDtypeStruct((receptive_field(spec.config), spec.n_features), jnp.float32),
        jax.ShapeDtypeStruct((spec.n_observation,), jnp.float32),
        jax.ShapeDtypeStruct((spec.n_actions,), jnp.bool_),
    )
    exported = jax.export.export(jax.jit(network), platforms=PLATFORMS)(*shapes)
    return bytes(exported.serialize())


class _Graph:
    """Nodes and constants of an ONNX graph as they are added."""

    def __init__(self, helper: Any, numpy_helper: Any):
        self.helper, self.numpy_helper = helper, numpy_helper
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(self.numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        output = output or f"x{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(kind, inputs, [output], **attributes))
        return output

    def dense(self, x: str, kernel: np.ndarray, bias: np.ndarray | None = None) -> str:
        product = self.add("MatMul", x, self.constant(kernel))
        return product if bias is None else self.add("Add", product, self.constant(bias))


def onnx_file(policy: Policy) -> bytes:
    """The network of N windows as an ONNX graph: window, observation and mask to log_probs and value.

    Raises:
      ConfigError: `onnx` is not installed, or as of `weights`.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError("--format onnx: needs the package onnx; pip install 'jaxppo[export]'") from error
    named, config, spec = weights(policy), policy.info.config.agent, policy.agent.spec
    graph = _Graph(onnx.helper, onnx.numpy_helper)
    count = len(named["market/bias"])
    members = [_member(graph, {name: x[m] for name, x in named.items()}, config.encoder) for m in range(count)]
    _joined(graph, [m[0] for m in members], [m[1] for m in members])
    floats, bools = onnx.TensorProto.FLOAT, onnx.TensorProto.BOOL
    info = onnx.helper.make_tensor_value_info
    inputs = [
        info("window", floats, ["n", None, spec.n_features]),
        info("observation", floats, ["n", spec.n_observation]),
        info("mask", bools, ["n", spec.n_actions]),
    ]
    outputs = [info("log_probs", floats, ["n", spec.n_actions]), info("value", floats, ["n"])]
    made = onnx.helper.make_graph(graph.nodes, "policy", inputs, outputs, graph.constants)
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _member(g: _Graph, w: Mapping[str, np.ndarray], encoder: str) -> tuple[str, str]:
    """Log-probabilities (N, K) and values (N, 1) of one member."""
    market = g.dense(_encoder(g, w, encoder), w["market/kernel"], w["market/bias"])
    x = g.add("Relu", g.add("Add", market, g.dense("observation", w["account/kernel"])))
    layer = 0
    while f"hidden/{layer}/kernel" in w:
        x = g.add("Relu", g.dense(x, w[f"hidden/{layer}/kernel"], w[f"hidden/{layer}/bias"]))
        layer += 1
    logits = g.dense(x, w["policy_head/kernel"], w["policy_head/bias"])
    allowed = g.add("Where", "mask", logits, g.constant(_MASKED))
    return g.add("LogSoftmax", allowed, axis=-1), g.dense(x, w["value_head/kernel"], w["value_head/bias"])


def _encoder(g: _Graph, w: Mapping[str, np.ndarray], encoder: str) -> str:
    """What the encoder makes of the windows, (N, D)."""
    if encoder == "window_mlp":
        kernel = w["encoder/kernel"]
        flat = g.add("Flatten", "window", axis=1)
        return g.add("Relu", g.dense(flat, kernel.reshape(-1, kernel.shape[-1]), w["encoder/bias"]))
    x = "window"
    if encoder == "tcn":
        x = g.dense(x, w["encoder/embed/kernel"], w["encoder/embed/bias"])
        axis, zero, half = (g.constant(np.array(v)) for v in ([1], [0], np.float32(0.5**0.5)))
        layer = 0
        while f"encoder/layers/{layer}/kernel" in w:
            dilation = 1 << layer
            past = g.add("Slice", x, zero, g.constant(np.array([-dilation])), axis)
            now = g.add("Slice", x, g.constant(np.array([dilation])), g.constant(np.array([2**31])), axis)
            both = g.add("Concat", past, now, axis=2)
            new = g.dense(both, w[f"encoder/layers/{layer}/kernel"], w[f"encoder/layers/{layer}/bias"])
            x = g.add("Mul", g.add("Add", now, g.add("Relu", new)), half)
            layer += 1
    return g.add("Gather", x, g.constant(np.array(-1)), axis=1)


def _joined(g: _Graph, log_probs: list[str], values: list[str]) -> None:
    """The mean of the members' probabilities and of their values, as the outputs of the graph."""
    value = g.add("Mean", *values) if len(values) > 1 else values[0]
    g.add("Squeeze", value, g.constant(np.array([1])), output="value")
    if len(log_probs) == 1:
        g.add("Identity", log_probs[0], output="log_probs")
        return
    most = g.add("Max", *log_probs)
    total = g.add("Sum", *(g.add("Exp", g.add("Sub", x, most)) for x in log_probs))
    summed = g.add("Add", most, g.add("Log", total))
    g.add("Sub", summed, g.constant(np.float32(math.log(len(log_probs)))), output="log_probs")


FORMATS: dict[str, Callable[[Policy], bytes]] = {
    "numpy": numpy_file,
    "onnx": onnx_file,
    "stablehlo": stablehlo_file,
}
