"""Shapes and dtypes of the named tuples that cross rooms: their annotations, checked while a program is traced.

A field is annotated as in `close: Float[jax.Array, "S T"]`. Tracing looks at shapes alone, so a check costs nothing in
the compiled program.
"""

from __future__ import annotations

from functools import cache
from typing import Any, get_args, get_type_hints

from jaxtyping import AbstractArray, jaxtyped


def check_fields(value: Any) -> None:
    """Check every array of a named tuple, those of nested ones too, against the annotation of its field.

    The name of an axis stands for one size in all fields, and `*name` for any number of axes, the same in all fields.
    What is annotated in another way, or is no array, is passed over.

    Raises:
      TypeError: naming the first field that does not fit.

    Example:
      >>> from jaxppo.market.tape import zero_tape
      >>> tape = zero_tape(n_symbols=2, n_bars=9, n_features=3)
      >>> check_fields(tape)
      >>> check_fields(tape._replace(length=tape.length[:1]))
      Traceback (most recent call last):
      TypeError: Tape.length: expected Int32 of shape (S), got int32 of shape (1,)
    """
    with jaxtyped("context"):
        _check(value, type(value).__name__)


def _check(value: Any, where: str) -> None:
    for name, wanted in _annotations(value.__class__).items():
        part = getattr(value, name)
        if hasattr(part, "_fields"):
            _check(part, f"{where}.{name}")
        elif wanted is not None and hasattr(part, "dtype") and not isinstance(part, wanted):
            shape = ", ".join(wanted.dim_str.split())
            raise TypeError(
                f"{where}.{name}: expected {wanted.dtype.__name__} of shape ({shape}), got {part.dtype} of shape"
                f" {part.shape}"
            )


@cache
def _annotations(of: type) -> dict[str, Any]:
    """The array that each field is annotated as, whatever library it is of; None where it is none."""
    found: dict[str, Any] = {}
    for name, hint in get_type_hints(of).items():
        arrays = [h for h in (hint, *get_args(hint)) if isinstance(h, type) and issubclass(h, AbstractArray)]
        found[name] = arrays[0].dtype[Any, arrays[0].dim_str] if arrays else None
    return found
