"""Numbers of the command line: `nan` and `inf`, which any range lets pass, are none."""

import math

import click


def finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:  # noqa: ARG001
    """Return the number, or refuse it."""
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no finite number")
    return value
