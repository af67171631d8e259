"""A library of kernels that a disk has changed: refused in a sentence, numba takes over, and it is said."""

import platform
from pathlib import Path

import numpy as np
import pytest

from runtime import kernel_library, kernels
from runtime.clock import SystemClock
from runtime.kernel_library import cpu_levels, file_name, find_library, open_library, present
from runtime.logs import child
from runtime.metrics import Metrics
from runtime.sealed import check, seal
from telemetry.errors import ConfigError, DecodeError
from tocsin.chain.intake import settle


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    path, random = tmp_path / "x", np.random.default_rng(4)
    whole = seal(random.bytes(200))
    path.write_bytes(whole)
    check(path)
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        with pytest.raises(DecodeError, match="its checksum is not that of its 200 bytes"):
            check(path)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(DecodeError):
            check(path)


def test_a_damaged_library_is_refused_and_numba_takes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / file_name(platform.machine(), cpu_levels()[-1])
    assert (present(tmp_path), find_library((), tmp_path)[0]) == ([], None)
    path.write_bytes(seal(b"\x7fELF")[:-1])
    with pytest.raises(ConfigError, match=r"damaged, cut or stripped.*make it anew"):
        open_library(path, ())
    assert present(tmp_path) == [path]
    library, why = find_library((), tmp_path)
    assert library is None
    assert str(path) in why
    monkeypatch.setattr(kernels, "_registry", [])
    monkeypatch.setattr(kernels, "LIBRARY", None)
    monkeypatch.setattr(kernels, "_why_no_library", why)
    monkeypatch.setattr(kernel_library, "present", lambda: [path])
    settle(SystemClock(), Metrics("node"), child("node"))
    assert caplog.text.count("kernel_library_refused") == 1
    monkeypatch.setattr(kernels, "_why_no_library", "")  # numba is asked for
    settle(SystemClock(), Metrics("node"), child("node"))
    assert caplog.text.count("kernel_library_refused") == 1
