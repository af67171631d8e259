"""Kernels that numba keeps on disk: what a disk or a power cut has changed is found and compiled anew."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FunctionType
from typing import Any

import numba
import numpy as np
import pytest

from runtime import kernels
from runtime.clock import SystemClock
from runtime.logs import child
from runtime.metrics import Metrics
from tocsin.chain.intake import settle

SOURCE = """
def double(value):
    return value * 2
"""
SIGNATURE = "i8(i8)"


@kernels.inline
def _doubled(value, i):  # type: ignore[no-untyped-def]
    if value[i] == 0.0:
        return 1.0
    return 2.0 * value[i]


def _every(value, out):  # type: ignore[no-untyped-def]
    for i in range(value.size):
        out[i] = _doubled(value, i)
    return value.size


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
        pytest.param(lambda data: data + b"\0", id="longer"),
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
    assert any(name.startswith(f"{kept}.tmp.") for name in synced), "before it has its name"
    assert str(kept.parent) in synced, "a power cut could leave it empty"
    whole = kept.read_bytes()
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "compiled_anew" not in caplog.text, "it was taken from the cache"
    kept.write_bytes(damage(whole))
    before = kernels.compiled_anew
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert caplog.text.count("kernel_compiled_anew kernel=kept_kernel.double") == 1
    assert kernels.compiled_anew == before + 1
    caplog.clear()
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "compiled_anew" not in caplog.text, "it is kept again"
    del sys.modules[path.stem]


MANY = """
import logging, sys
from runtime import kernels
from runtime.clock import SystemClock
from runtime.logs import child
from runtime.metrics import Metrics
from tocsin.chain.intake import settle
import many
logging.basicConfig(format="%(message)s")
print([kernels._compile(getattr(many, name), "i8(i8)")(21) for name in many.NAMES])
print(kernels.compiled_anew)
"""


def test_a_flipped_bit_anywhere_is_found_and_the_kernel_compiled_anew(tmp_path: Path) -> None:
    """Machine code runs in a process of its own: one that is wrong may end it."""
    names = [f"times_{n}" for n in range(2, 8)]
    source = "".join(f"def times_{n}(value):\n    return value * {n}\n" for n in range(2, 8))
    (tmp_path / "many.py").write_text(f"NAMES = {names}\n{source}")
    random, cache = np.random.default_rng(33), tmp_path / "cache"

    def start() -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-c", MANY], capture_output=True, text=True, check=False, cwd=tmp_path,
            env={**os.environ, "NUMBA_CACHE_DIR": str(cache), "TOCSIN_KERNELS": "",
                 "PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[3]}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        results, anew = done.stdout.splitlines()
        assert results == str([21 * n for n in range(2, 8)])
        return int(anew), done.stderr

    assert start() == (0, "")
    for kind in ("nbi", "nbc", "nbc"):
        for path in cache.rglob(f"*.{kind}"):
            data = bytearray(path.read_bytes())
            data[random.integers(len(data))] ^= 1 << random.integers(8)
            path.write_bytes(data)
        anew, said = start()
        assert anew == len(names)
        assert sorted(re.findall(r"kernel_compiled_anew kernel=many\.(\w+)", said)) == names
    assert start() == (0, "")


def test_a_process_counts_kernels_that_were_damaged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_registry", [])
    monkeypatch.setattr(kernels, "compiled_anew", 3)
    metrics = Metrics("node")
    settle(SystemClock(), metrics, child("node"))
    settle(SystemClock(), metrics, child("node"))  # as after a change of the configuration
    assert metrics.value("kernels_compiled_anew_total") == 3


def test_what_was_kept_of_other_sources_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The index is written first: who is killed before the data leaves that of the old sources there."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kept_kernel.py"
    path.write_text(SOURCE)
    assert kernels._compile(load(path), SIGNATURE)(21) == 42
    (data,) = (tmp_path / "cache").rglob("*.nbc")
    old = data.read_bytes()
    path.write_text(SOURCE.replace("* 2", "* 30"))
    assert kernels._compile(load(path), SIGNATURE)(21) == 630
    data.write_bytes(old)
    assert kernels._compile(load(path), SIGNATURE)(21) == 630
    assert kernels._compile(load(path), SIGNATURE)(21) == 630
    assert data.read_bytes() != old
    assert not caplog.text
    del sys.modules[path.stem]


def test_a_full_disk_keeps_nothing_and_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kept_kernel.py"
    path.write_text(SOURCE)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert kernels._compile(load(path), SIGNATURE)(21) == 42
    assert "kernel_not_kept kernel=kept_kernel.double" in caplog.text
    assert not [x for x in (tmp_path / "cache").rglob("*") if x.is_file()]
    del sys.modules[path.stem]


def test_a_kernel_counts_no_references(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part with two ways out: numba would count the array's references in each row."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    compiled: Any = kernels._compile(_every, "i8(const f8[::1], f8[::1])")
    out = np.zeros(3)
    compiled(np.array([0.0, 2.0, 3.0]), out)
    assert out.tolist() == [1.0, 4.0, 6.0]
    (code,) = compiled.inspect_asm().values()
    assert "_every" in code
    assert "NRT_" not in code


def test_what_was_compiled_otherwise_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "kept_kernel.py"
    path.write_text(SOURCE)
    kernels._compile(load(path), SIGNATURE)
    kernels._compile(load(path), SIGNATURE)
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 1
    monkeypatch.setattr(kernels, "OPTIONS", {"nogil": True})
    kernels._compile(load(path), SIGNATURE)
    assert len(list((tmp_path / "cache").rglob("*.nbc"))) == 2
    del sys.modules[path.stem]
