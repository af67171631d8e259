"""The registry of kernels: plain loops over arrays, compiled by numba on first use or by `warm`.

A kernel is a function on arrays and numbers that allocates nothing and raises nothing. It has one
explicit signature, because a lazily specialised call would stall a tick for seconds, once per
unseen dtype. Write `const` before each array that the kernel only reads: batches are read-only,
and numba would otherwise refuse them.

>>> @kernel("i8(const u4[::1], u4[::1])")
... def double(value, out):
...     for i in range(value.size):
...         out[i] = value[i] * 2
...     return value.size
>>> import numpy as np
>>> out = np.zeros(2, np.uint32)
>>> double(np.array([3, 4], np.uint32), out), out.tolist()
(2, [6, 8])

Numba's cache does not see other files or later values of globals: keep a kernel, its inlined
parts (`@inline`) and its constants in one file. Bounds are not checked unless
NUMBA_BOUNDSCHECK=1 (with a NUMBA_CACHE_DIR of its own: the cache ignores that flag).

Where a library of kernels compiled ahead of time fits (runtime.kernel_library), its kernels are
used and numba is not even imported. Else numba is imported when the first kernel is compiled: 65 MB.
"""

import contextlib
import ctypes
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any, Generic, ParamSpec, TypeVar, cast

import numpy as np

from runtime import kernel_library
from telemetry.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

# Every module that defines kernels, so that `tocsin warm` can compile all of them.
KERNEL_MODULES: tuple[str, ...] = (
    "alerting.life.triage",
    "collectors.listen.receive",
    "collectors.listen.gather",
    "collectors.flow.streams",
    "collectors.flow.shedding",
    "collectors.flow.netflow5",
    "collectors.flow.templated",
    "collectors.flow.templated_finish",
    "collectors.flow.packet",
    "collectors.flow.sflow_kernels",
    "collectors.bmp.bgp_updates",
    "collectors.bmp.frames",
    "collectors.bmp.peers",
    "collectors.bmp.rib",
    "collectors.snmp.digest",
    "collectors.syslog.frames",
    "collectors.syslog.header",
    "collectors.syslog.senders",
    "collectors.syslog.columns",
    "collectors.syslog.patterns",
    "correlator.windows_kernels",
    "correlator.suspects_kernels",
    "correlator.series_index",
    "correlator.sample_windows",
    "correlator.tables.routing",
    "detectors.baseline",
    "detectors.calibration",
    "detectors.exceedances",
    "detectors.groups",
    "detectors.look_kernels",
    "detectors.outlook_kernels",
    "detectors.ranking",
    "detectors.series_kernels",
    "detectors.shape",
    "detectors.shape_pool",
    "detectors.sparse",
    "detectors.security.beacons",
    "detectors.security.usual",
    "detectors.weeks",
)

# How numba compiles a kernel. It allocates nothing, and its caller holds the arrays: their references are not
# counted, which numba does for each row where a part has several ways out (ADR 0078).
OPTIONS: dict[str, Any] = {"nogil": True, "_nrt": False}

_registry: "list[Kernel[..., Any]]" = []
# What kernels call, and how numba's twin of each is made: when a kernel is compiled, not when its
# module is imported. So a process that runs no kernel (desk, gate, most commands) has no numba.
_parts: dict[Callable[..., Any], Callable[[Any], Any]] = {}
_twins: dict[Callable[..., Any], Any] = {}

# Kernels that were kept on disk, and damaged.
compiled_anew = 0
_log = logging.getLogger("tocsin.kernels")

# Decided once for the process: kernels of the library, or numba.
LIBRARY, _why_no_library = kernel_library.chosen(KERNEL_MODULES)


class Kernel(Generic[P, R]):
    """A function that is compiled for its one signature at its first call."""

    def __init__(self, function: Callable[P, R], signature: str) -> None:
        self.function = function  # the plain Python version: the test's oracle
        self.signature = signature
        self.name = f"{function.__module__}.{function.__name__}"
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__
        self.__module__ = function.__module__
        self.__wrapped__ = function
        self._compiled: Callable[P, R] | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._compiled is None:
            self.compile()
        return self._compiled(*args, **kwargs)  # type: ignore[misc]  # compile() has set it

    def compile(self) -> None:
        """Take it from the library; else compile it, or load it from numba's cache."""
        if self._compiled is None and LIBRARY is not None:
            self._compiled = LIBRARY.function(self.name, self.signature)
        if self._compiled is None:
            self._compiled = _compile(self.function, self.signature)


def require() -> None:
    """Raise ConfigError where this process could run no kernel: no library that fits, no numba.

    A program calls it before it starts threads, so that the sentence is said once, by all of it.
    """
    if LIBRARY is None and (_library_only() or find_spec("numba") is None):
        raise _no_kernels()


def refused() -> str:
    """Return why a library that is there is not used, "" where there is none or it is not wanted."""
    return _why_no_library if LIBRARY is None and kernel_library.present() else ""


def _library_only() -> bool:
    return os.environ.get("TOCSIN_KERNELS", "") not in ("", "numba", "memory")


def _no_kernels() -> ConfigError:
    if _library_only():
        return ConfigError(
            f"TOCSIN_KERNELS={os.environ['TOCSIN_KERNELS']}: {_why_no_library}. Nothing was started."
        )
    return ConfigError(
        f"no compiled kernels: numba is not installed, and {_why_no_library or 'it is asked for'}. "
        f"pip install 'tocsin[jit]', or take a package with kernels for this machine. "
        f"Nothing was started."
    )


def kernel(signature: str) -> Callable[[Callable[P, R]], Kernel[P, R]]:
    """Register a function as a kernel with one explicit signature; see the module's docstring."""

    def register(function: Callable[P, R]) -> Kernel[P, R]:
        made = Kernel(function, signature)
        _registry.append(made)
        return made

    return register


def inline(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a part that kernels of the same file call. Compiled into each of them."""
    _parts[function] = lambda numba: numba.njit(inline="always", **OPTIONS)(function)
    return function


def subroutine(function: Callable[P, R]) -> Callable[P, R]:
    """Mark a longer part that kernels of the same file call: compiled once, not inlined."""
    _parts[function] = lambda numba: numba.njit(**OPTIONS)(function)
    return function


def external(name: str, signature: str) -> Callable[..., Any]:
    """Return a function of the C library that kernels may call, such as `poll`: i4(u8, u8, i4).

    Addresses are u8. Called from Python it is the plain function.
    """
    found: list[Any] = []

    def plain(*args: int) -> Any:
        if not found:
            made = getattr(ctypes.CDLL(None, use_errno=True), name)
            made.argtypes = tuple(_PLAIN[kind] for _, kind in parameters(signature))
            made.restype = _PLAIN[signature.partition("(")[0].strip()]
            found.append(made)
        return found[0](*args)

    _parts[plain] = lambda numba: numba.types.ExternalFunction(name, parse_signature(signature))
    return plain


_PLAIN = {
    "i4": ctypes.c_int32, "u4": ctypes.c_uint32, "i8": ctypes.c_int64, "u8": ctypes.c_uint64,
}  # fmt: skip


def _loader(width: int) -> Any:
    """Return a function (array, index) -> uint64 that reads `width` big-endian bytes.

    Compiled to one unaligned load and a byte swap, three times faster than a loop over bytes, and
    invisible to numba's bounds checks: so callers check lengths first, and with NUMBA_BOUNDSCHECK=1
    or without JIT the checked twin, a loop over bytes, takes its place.
    """

    def plain(array, at):  # type: ignore[no-untyped-def]
        value = np.uint64(0)
        for i in range(width):
            value = (value << np.uint64(8)) | np.uint64(array[at + i])
        return value

    if os.environ.get("NUMBA_BOUNDSCHECK", "0") not in ("", "0"):
        return inline(plain)

    def make(numba: Any) -> Any:
        from llvmlite import ir

        def load(typing_context, array, index):  # type: ignore[no-untyped-def]  # noqa: ARG001
            def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
                kind = ir.IntType(8 * width)
                made = context.make_array(signature.args[0])(context, builder, arguments[0])
                place = builder.gep(made.data, [arguments[1]])
                place = builder.bitcast(place, kind.as_pointer())
                word = builder.load(place)
                word.align = 1
                swap = builder.module.declare_intrinsic("llvm.bswap", [kind])
                word = builder.call(swap, [word])
                return builder.zext(word, ir.IntType(64)) if width < 8 else word

            return numba.types.uint64(array, numba.types.int64), generate

        return import_module("numba.extending").intrinsic(load)

    _parts[plain] = make
    return plain


load_u16 = _loader(2)
load_u32 = _loader(4)
load_u64 = _loader(8)


def registered() -> "Iterator[Kernel[..., Any]]":
    """Import every kernel module and yield all kernels in order."""
    for module in KERNEL_MODULES:
        import_module(module)
    yield from _registry


def imported() -> "tuple[Kernel[..., Any], ...]":
    """Return the kernels of the modules that this process has imported so far."""
    return tuple(_registry)


def _without_jit(function: Callable[P, R]) -> Callable[P, R]:
    """Return the plain function; integers of fixed width wrap around in it without a warning."""

    def plain(*args: P.args, **kwargs: P.kwargs) -> R:
        with np.errstate(over="ignore"):
            return function(*args, **kwargs)

    return plain


def _compile(function: Callable[P, R], signature: str) -> Callable[P, R]:
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return _without_jit(function)
    if _library_only() and LIBRARY is None:
        raise _no_kernels()
    with warnings.catch_warnings():
        try:
            _import_numba()
            from numba import njit
            from numba.core.errors import NumbaWarning

            from runtime.kernel_cache import CheckedCache
        except ImportError as error:
            raise _no_kernels() from error
        link(function)
        warnings.simplefilter("ignore", NumbaWarning)  # an unwritable cache is told by `warm`
        compiled: Any = njit(**OPTIONS)(function)
        if os.environ.get("TOCSIN_KERNELS") != "memory":
            name = f"{function.__module__}.{function.__name__}"
            with contextlib.suppress(RuntimeError):  # the function is in no file: not kept
                compiled._cache = CheckedCache(
                    compiled.py_func, OPTIONS,
                    damaged=partial(_damaged, name), unkept=partial(_unkept, name),
                )  # fmt: skip
        compiled.compile(parse_signature(signature))
        compiled.disable_compile()
        for made in compiled.overloads.values():
            made.library._shared_module = None  # its LLVM code, for callers to be linked with: none
    return cast("Callable[P, R]", compiled)


def _damaged(name: str, error: Exception) -> None:
    global compiled_anew  # noqa: PLW0603  # of the process, as kernels are
    compiled_anew += 1
    _log.warning("kernel_compiled_anew kernel=%s cache_error=%r", name, error)


def _unkept(name: str, error: Exception) -> None:
    _log.warning(
        "kernel_not_kept kernel=%s error=%s; compiled again at the next start", name, error
    )


def _import_numba() -> None:
    """Import numba without scipy, which it looks for though it needs it for linear algebra only: 19 MB.

    Who imports scipy afterwards finds it, numba too: it looks again where a kernel has linear algebra.
    """
    if "numba" in sys.modules or "scipy" in sys.modules:
        return
    sys.modules["scipy"] = None  # type: ignore[assignment]  # imported now, it is not there
    try:
        import_module("numba.np.arraymath")  # all of numba that looks for it
    finally:
        sys.modules.pop("scipy", None)


def link(function: Callable[..., Any]) -> None:
    """Put numba's twins in the place of the parts that a function calls. Call before numba sees it."""
    known = function.__globals__
    for name in function.__code__.co_names:
        part = known.get(name)
        if not isinstance(part, FunctionType) or part not in _parts:
            continue
        if part not in _twins:
            link(part)
            _twins[part] = _parts[part](import_module("numba"))
        known[name] = _twins[part]


def parameters(signature: str) -> list[tuple[str, str]]:
    """Return each parameter of a signature as its text and as the type in it, without `const`."""
    match = re.fullmatch(r"\s*(\w+)\((.*)\)\s*", signature, re.DOTALL)
    if match is None:
        raise ConfigError(f"kernel signature {signature!r} is not of the form result(arguments)")
    parts = [part.strip() for part in re.split(r",(?![^\[]*\])", match[2]) if part.strip()]
    return [(part, part.removeprefix("const ")) for part in parts]


def parse_signature(signature: str) -> Any:
    """Return numba's signature object for a text such as `i8(const u1[::1], f8)`."""
    from numba import types
    from numba.core import sigutils

    normalize: Any = sigutils.normalize_signature

    made = []
    for text, plain in parameters(signature):
        kind = normalize(f"void({plain})")[0][0]
        if text.startswith("const "):
            kind = types.Array(kind.dtype, kind.ndim, kind.layout, readonly=True)
        made.append(kind)
    returns = normalize(f"{signature.partition('(')[0].strip()}()")[1]
    return returns(*made)
