"""Captures through the same code as `tocsin decode`, as rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collectors.flow.columns import FlowMemory
from tocsin.cases.decoding import Decoding
from tocsin.testing import make_context


def decoded(
    *paths: Path, explain: bool = False, **options: Any
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return (rows, what could not be decoded by reason)."""
    run = Decoding(make_context(), **options)
    run.explain = explain
    rows = list(run.rows(paths))
    return rows, dict(run.undecoded)


def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new memory of flow columns with rubbish: what a kernel forgets to write shows."""
    room = FlowMemory.room

    def poisoned(rows: int, *, extra: int = 0) -> FlowMemory:
        made = room(rows, extra=extra)
        for part in (made.wide, made.words, made.halves, made.octets):
            part.view(np.uint8).fill(0xA5)
        return made

    monkeypatch.setattr(FlowMemory, "room", poisoned)
