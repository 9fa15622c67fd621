"""The parts and what each of them runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.run import Step

PARTS = {
    "card": "versions, and the card's ceilings",
    "agree": "the GPU against the CPU: gradient and an update's weights, in float32, TF32 and bfloat16, and fused",
    "bits": "a deterministic run twice, the same to the bit",
    "tests": "the tests that matter, on the GPU",
    "program": "production's program: compilation, memory, seconds, bandwidth, profile by named scope",
    "quick_test": "the preset by the command line",
    "envs": "env / policy / update from 2,048 to 1,048,576 envs",
    "production": "the whole run of 500M steps by the command line",
    "variants": "the program without CUDA graphs, in bfloat16, with fused kernels, with other minibatches and steps",
}
CORRECTNESS = ("agree", "bits", "tests")
BASE = "program"

VARIANTS: dict[str, dict[str, Any]] = {
    "bfloat16": {"set": {"compute_dtype": "bfloat16"}},
    "no_graphs": {"xla": "--xla_gpu_enable_command_buffer="},
    "fused": {"set": {"kernels": "fused"}},
    "bfloat16_fused": {"set": {"compute_dtype": "bfloat16", "kernels": "fused"}},
    "bfloat16_minibatches_4": {"set": {"compute_dtype": "bfloat16", "minibatches": 4}},
    "steps_32": {"set": {"n_steps": 32, "n_updates": 119}},
    "minibatches_4": {"set": {"minibatches": 4}},
    "bfloat16_minibatches_4_fused": {"set": {"compute_dtype": "bfloat16", "minibatches": 4, "kernels": "fused"}},
    "deterministic": {"flags": ("--deterministic",)},
    "no_triton_gemm": {"xla": "--xla_gpu_enable_triton_gemm=false"},
    "bfloat16_no_graphs": {"set": {"compute_dtype": "bfloat16"}, "xla": "--xla_gpu_enable_command_buffer="},
}
"""In the order in which they are run while there is time."""
TINY_STEPS = {"n_steps": 8, "n_updates": 20}  # steps_32 at tiny sizes

ALONE = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""For those that are on the card beside each other: JAX takes three quarters of it otherwise."""


def groups(
    parts: Sequence[str], variants: Sequence[str], folder: Path, tiny: bool, platform: str
) -> list[tuple[list[Step], bool]]:
    """Steps in order, and whether those of a group may run side by side: nothing in it is timed.

    Args:
      parts, variants: of `PARTS` and `VARIANTS`.
      folder: where runs may write.
      tiny: at tiny sizes.
      platform: the GPU's, as `JAX_PLATFORMS` has it; JAX's own name of NVIDIA's where it is empty.
    """
    both = [platform or "cuda", *(["cpu"] if "cpu" not in platform.split(",") else [])]
    beside = {**ALONE, "JAX_PLATFORMS": ",".join(both)}
    of_tests = {**beside, "JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_PYTHON_CLIENT_MEM_FRACTION": ".08"}
    if not tiny:
        of_tests["COMPILED_AS_USERS_DO"] = "true"
    checks = [
        Step("agree", "agree", "agree", environment=beside),
        # Caches of their own: the second must not be handed what was tuned for the first.
        *(
            Step(
                "bits", f"bits_{i}", "bits", environment={**ALONE, "JAX_COMPILATION_CACHE_DIR": str(folder / f"xla{i}")}
            )
            for i in (1, 2)
        ),
        Step("tests", "tests", "suite", environment=of_tests),
    ]
    command = ("--folder", str(folder))
    timed = [
        # The profile comes last in it, and its program is in the cache for `production`.
        Step("program", BASE, "program", ("--profile",), least=45),
        Step("quick_test", "quick_test", "command", ("--preset", "quick_test", *command), least=30),
        Step("envs", "envs", "envs", least=60),
        Step("production", "production", "command", ("--preset", "production", *command), least=45),
        *(variant(name, tiny) for name in variants),
    ]
    card = [Step("card", "card", "card", least=10, most=60)]
    wanted = [
        ([s for s in steps if s.part in parts], side) for steps, side in ((card, False), (checks, True), (timed, False))
    ]
    return [(steps, side) for steps, side in wanted if steps]


def variant(name: str, tiny: bool) -> Step:
    """The program with a field or a flag of XLA changed."""
    of = VARIANTS[name]
    changes = TINY_STEPS if tiny and name == "steps_32" else of.get("set", {})
    environment = {"XLA_FLAGS": of["xla"]} if "xla" in of else {}
    arguments = ("--set", json.dumps(changes), *of.get("flags", ()))
    return Step("variants", name, "program", arguments, least=35, most=110, environment=environment)
