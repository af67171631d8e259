"""Where this installation keeps its state, and how kernels find their cache."""

import os
import platform
from pathlib import Path

from tocsin import __version__


def state_dir(given: Path | None = None) -> Path:
    """Return the state folder: as given, `TOCSIN_STATE_DIR`, /var/lib/tocsin for root's service,
    else `~/.local/state/tocsin`."""
    if given is not None:
        return given
    if named := os.environ.get("TOCSIN_STATE_DIR") or os.environ.get("STATE_DIRECTORY"):
        return Path(named)
    base = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
    return Path(base) / "tocsin"


def kernel_environment(folder: Path) -> tuple[dict[str, str], str]:
    """Return (environment for numba, "" or one sentence about what is not ideal).

    The cache is keyed by our version and the machine's kind. Where the folder cannot be written,
    kernels are compiled in memory at each start.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return {}, ""
    cache = folder / "kernels" / f"{__version__}-{platform.machine()}"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        probe = cache / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        return (
            {"TOCSIN_KERNELS": "memory"},
            (
                f"{cache}: {error.strerror}; kernels are compiled in memory at each start (up to a "
                f"minute). Make the folder writable or set TOCSIN_STATE_DIR"
            ),
        )
    return {"NUMBA_CACHE_DIR": str(cache)}, ""


def use_kernel_cache(folder: Path) -> str:
    """Let this process and those it starts keep compiled kernels in `folder`.

    Call it before anything imports numba. Return "" or one sentence about what is not ideal.
    """
    environment, said = kernel_environment(folder)
    os.environ.update(environment)
    return said


def writable_state(folder: Path) -> tuple[Path, str]:
    """Return (`folder`, "") or, where it cannot be written, (one for this run only, a sentence)."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        import tempfile  # a megabyte that only this costs

        instead = Path(tempfile.mkdtemp(prefix="tocsin-"))
        return instead, (
            f"{folder}: {error.strerror}; this run keeps its state in {instead} and compiles its "
            f"kernels anew. Make the folder writable or set TOCSIN_STATE_DIR"
        )
    return folder, ""
