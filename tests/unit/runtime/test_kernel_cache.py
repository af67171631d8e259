"""Kernels that numba keeps on disk: files that a power cut left behind do not stop a start."""

import os
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType

import numba
import pytest

from runtime import kernels

SOURCE = """
def double(value):
    return value * 2
"""
SIGNATURE = "i8(i8)"
pytestmark = pytest.mark.skipif(
    bool(numba.config.DISABLE_JIT), reason="without JIT nothing is kept"
)


def load(path: Path) -> FunctionType:
    """Return the function of a module, as a process that has just started has it."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[path.stem] = module_from_spec(spec)
    spec.loader.exec_module(module)
    made: FunctionType = module.double
    return made


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda data: b"", id="empty"),
        pytest.param(lambda data: bytes(len(data)), id="zeros"),
        pytest.param(lambda data: data[: len(data) // 2], id="cut"),
        pytest.param(lambda data: b"\xff" * 20 + data[20:], id="overwritten"),
    ],
)
def test_a_damaged_cache_file_is_compiled_anew_and_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    damage: Callable[[bytes], bytes],
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kept_kernel.py"
    path.write_text(SOURCE)
    synced: list[str] = []
    sync = os.fsync
    with monkeypatch.context() as patched:

        def noted(descriptor: int) -> None:
            synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
            sync(descriptor)

        patched.setattr(os, "fsync", noted)
        assert kernels._compile(load(path), SIGNATURE)(21) == 42
    (kept,) = (tmp_path / "cache").rglob(f"*.{kind}")
    assert str(kept) in synced, "a power cut could leave it empty"
    whole = kept.read_bytes()
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "compiled_anew" not in caplog.text, "it was taken from the cache"
    kept.write_bytes(damage(whole))
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "kernel_compiled_anew kernel=kept_kernel.double" in caplog.text
    caplog.clear()
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "compiled_anew" not in caplog.text, "it is kept again"
    del sys.modules[path.stem]
