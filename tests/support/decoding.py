"""Captures through the same code as `tocsin decode`, as rows."""

from pathlib import Path
from typing import Any

from tocsin.cli.decode import Decoding
from tocsin.testing import make_context


def decoded(
    *paths: Path, explain: bool = False, **options: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return (rows, what could not be decoded by reason)."""
    run = Decoding(make_context(), **options)
    run.explain = explain
    rows = list(run.rows(paths))
    return rows, dict(run.undecoded)
