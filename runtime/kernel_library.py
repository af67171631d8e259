"""Kernels that were compiled ahead of time: one shared library, used where numba is not wanted.

A library is made by `tocsin warm --ahead-of-time` on a build machine (runtime.ahead_of_time) and
lies beside this file. Its name states machine and CPU level, its description a digest of the
kernels' sources: one that was made of other sources is refused, and one that a disk has changed, by
the checksum behind it. Importing this module imports
neither numba nor numpy.
"""

import ctypes
import json
import os
import platform
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.sealed import check
from telemetry.digest import blake2b
from telemetry.errors import ConfigError, DecodeError

FORMAT = 1
ROOT = Path(__file__).parents[1]
# What each level of x86-64 adds, as /proc/cpuinfo names it (System V ABI, x86-64 psABI, 3.1.1).
LEVELS: dict[str, tuple[str, ...]] = {
    "x86-64": (),
    "x86-64-v2": ("cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"),
    "x86-64-v3": ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"),
    "x86-64-v4": ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
}
GENERIC = "generic"  # the only level of other machines


@dataclass(frozen=True, slots=True)
class Library:
    """A library that fits this machine and these sources. Its kernels are made when first called."""

    path: Path
    cpu: str
    signatures: tuple[tuple[str, str], ...]  # (name, signature) of each kernel, in its own order
    _handle: ctypes.PyDLL

    def function(self, name: str, signature: str) -> Callable[..., Any] | None:
        """Return a kernel as a builtin function, None where the library does not have it."""
        try:
            index = self.signatures.index((name, plain(signature)))
        except ValueError:
            return None
        make = self._handle.tocsin_function
        make.argtypes, make.restype = [ctypes.c_int], ctypes.py_object
        made: Callable[..., Any] = make(index)
        return made


def plain(signature: str) -> str:
    """Return a signature in one form, however its text was broken into lines."""
    return "".join(signature.replace("const ", "const_").split())


def file_name(machine: str, cpu: str) -> str:
    """Return what the library of a machine and CPU level is called."""
    return f"kernels-{machine}-{cpu}.so"


def source_digest(modules: Iterable[str], root: Path = ROOT) -> str:
    """Return the digest of everything that kernels are made of: their files and the registry."""
    digest = blake2b(f"{FORMAT}\n".encode(), digest_size=32)
    for module in (*modules, "runtime.kernels"):
        text = (root / module.replace(".", "/")).with_suffix(".py").read_bytes()
        digest.update(f"{module} {len(text)}\n".encode() + text)
    digest.update((root / "runtime" / "kernel_library.c").read_bytes())
    return digest.hexdigest()


def cpu_levels(flags: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the levels that this machine can run, the best first."""
    if platform.machine() != "x86_64":
        return (GENERIC,)
    if flags is None:
        try:
            text = Path("/proc/cpuinfo").read_text("ascii", "replace")
        except OSError:
            text = ""
        flags = next((x for x in text.splitlines() if x.startswith("flags")), "").split()
    has, found = set(flags), []
    for level, needs in LEVELS.items():
        if not has.issuperset(needs):
            break
        found.append(level)
    return tuple(reversed(found))


def open_library(path: Path, modules: Iterable[str]) -> Library:
    """Return the library at `path`, or raise ConfigError: missing, damaged, foreign or stale."""
    again = "make it anew: tocsin warm --ahead-of-time"
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise ConfigError(f"{path}: this Python runs without a global lock; {again} is of no use")
    if not path.is_file():
        raise ConfigError(f"{path}: no such kernel library; {again}")
    try:
        check(path)  # before any of its code runs
    except DecodeError as error:
        raise ConfigError(
            f"{path}: damaged, cut or stripped, by the checksum behind it; {again}"
        ) from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {again}") from error
    try:
        handle = ctypes.PyDLL(str(path))
        handle.tocsin_description.restype = ctypes.c_char_p
        told = json.loads(handle.tocsin_description())
        made_for, cpu = told["machine"], told["cpu"]
        kernels = tuple((str(name), str(signature)) for name, signature in told["kernels"])
    except (OSError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: not a kernel library for this machine ({error}); {again}"
        ) from error
    if told.get("format") != FORMAT or told.get("sources") != source_digest(modules):
        raise ConfigError(
            f"{path}: made from other sources than these (Tocsin {told.get('version')}); {again}"
        )
    if made_for != platform.machine() or cpu not in cpu_levels():
        raise ConfigError(f"{path}: made for {made_for} {cpu}, this machine is less; {again}")
    return Library(path, cpu, kernels, handle)


def present(folder: Path = ROOT / "runtime") -> list[Path]:
    """Return the libraries in a folder that are for this machine by their names, the best first."""
    paths = [folder / file_name(platform.machine(), cpu) for cpu in cpu_levels()]
    return [path for path in paths if path.exists()]


def find_library(modules: Iterable[str], folder: Path | None = None) -> tuple[Library | None, str]:
    """Return (the best library that fits, "") or (None, why there is none)."""
    folder = folder or ROOT / "runtime"
    why = ""
    for path in present(folder):
        try:
            return open_library(path, modules), ""
        except ConfigError as error:
            why = why or str(error)
    return None, why or f"no kernel library for {platform.machine()} in {folder}"


def chosen(modules: Iterable[str]) -> tuple[Library | None, str]:
    """Return the library that this process uses, by TOCSIN_KERNELS, and why there is none.

    `numba` and `memory` want numba; `library` wants the library beside this file and nothing
    else, a path that very file; by default one that fits is used, else numba.
    """
    wanted = os.environ.get("TOCSIN_KERNELS", "")
    tested = ("NUMBA_BOUNDSCHECK", "NUMBA_DISABLE_JIT")  # switches of numba's own
    if wanted in ("numba", "memory") or any(
        os.environ.get(x, "0") not in ("", "0") for x in tested
    ):
        return None, ""
    if wanted in ("", "library"):
        return find_library(modules)
    try:
        return open_library(Path(wanted), modules), ""
    except ConfigError as error:
        return None, str(error)
