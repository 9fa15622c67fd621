"""The arrays of a checkpoint: compared with what they should be before they are read, so that a wrong one is named."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxppo.errors import CheckpointError


@cache
def orbax() -> Any:
    """Orbax, imported when it is first asked for: that takes .3 s, which a run has once the device is busy training."""
    from orbax import checkpoint

    return checkpoint.v1


def load_arrays(checkpoint: Path, part: str, shapes: Any, finite: Sequence[str] = ()) -> Any:
    """The arrays of one part of a checkpoint.

    Args:
      checkpoint: its folder.
      part: "train", "policy" or "best".
      shapes: what is expected, a dict of pytrees of `jax.ShapeDtypeStruct`.
      finite: entries of `shapes` whose floats must be finite.

    Raises:
      CheckpointError: an array is missing, is one too many, has another shape or dtype, or is not finite; it is named.
    """
    sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes)
    with _quiet(), _by_itself():
        try:
            compare_arrays(checkpoint, part, leaves_by_name(_described(checkpoint, part)), leaves_by_name(wanted))
            loaded = orbax().load_checkpointables(checkpoint, {part: wanted})[part]
        except (ValueError, KeyError, OSError, TypeError, AttributeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise CheckpointError(f"{checkpoint}: {part} cannot be restored ({reason})") from error
    for name, array in leaves_by_name({k: loaded[k] for k in finite}).items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise CheckpointError(f"{checkpoint}: array {part}/{name} holds NaN or infinity, which no run saves")
    return loaded


def _described(checkpoint: Path, part: str) -> Any:
    """Shapes and dtypes that a checkpoint says its arrays have; none of them is read."""
    parts = orbax().checkpointables_metadata(checkpoint).metadata
    if part not in parts:
        raise CheckpointError(f"{checkpoint}: part {part!r} is missing; there are {', '.join(sorted(parts))}")
    return parts[part]


def leaves_by_name(tree: Any) -> dict[str, Any]:
    """Leaves of a pytree by their names, such as moments/mean."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(getattr(k, "name", getattr(k, "key", k))) for k in path): leaf for path, leaf in leaves}


def compare_arrays(checkpoint: Path, part: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """`CheckpointError` with the first array that is not as it should be."""
    if not found:  # which is how Orbax tells of a description or an index that it cannot read
        raise CheckpointError(f"{checkpoint}: no array of {part} can be read; its files are not what was saved")
    for name in sorted(wanted.keys() ^ found.keys()):
        wrong = "is missing" if name in wanted else "is one that no checkpoint of this configuration has"
        raise CheckpointError(f"{checkpoint}: array {part}/{name} {wrong}")
    for name, array in wanted.items():
        shape, dtype = tuple(found[name].shape), np.dtype(found[name].dtype)
        if (shape, dtype) != (array.shape, array.dtype):
            raise CheckpointError(
                f"{checkpoint}: array {part}/{name} is {dtype} of shape {shape}, and should be {array.dtype} of shape"
                f" {array.shape}"
            )


def _by_itself() -> AbstractContextManager[Any]:
    """Where several processes train, each reads all arrays for itself and waits for no other."""
    if jax.process_count() == 1:
        return nullcontext()
    me = jax.process_index()
    options = orbax().options.MultiprocessingOptions(primary_host=me, active_processes={me})
    context: AbstractContextManager[Any] = orbax().Context(multiprocessing_options=options)
    return context


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what Orbax says itself: it warns where it reads the sharding file, and logs tracebacks of its errors."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(before)
