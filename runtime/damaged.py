"""A damaged state file is kept under another name, for a bug report, and said; never guessed at."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from runtime.component import Context


def set_aside(path: Path, error: object, context: Context, *, beside: Iterable[str] = ()) -> Path:
    """Rename a file to `*.damaged-<time>` and log what is wrong with it. Raises OSError.

    Those whose names go on with a suffix in `beside` belong to it and go along.
    """
    aside = path.with_name(f"{path.name}.damaged-{context.clock.now_ns() // 1_000_000_000}")
    for suffix in ("", *beside):
        with contextlib.suppress(FileNotFoundError):  # another process that read it was faster
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    context.log.error("state_set_aside file=%s error=%s", aside, error)
    return aside
