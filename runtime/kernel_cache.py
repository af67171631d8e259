# mypy: disable-error-code="no-untyped-call"
"""What numba keeps of compiled kernels, with a CRC-32 behind each of its files (ADR 0072).

Its files are pickles that hold machine code: one bit that a disk has flipped is a wrong figure or a
crash. Unpickling looks at no more than the pickle, so a checksum behind it disturbs nobody. Who
imports this module has numba.
"""

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

from numba.core.caching import FunctionCache, IndexDataCacheFile

from runtime.sealed import check, seal
from telemetry.errors import DecodeError


class CheckedFile(IndexDataCacheFile):
    """One function's index and its data files: checked before they are unpickled, synced once written."""

    def load(self, key: Any) -> Any:
        """Return what was kept of `key`, None where there is nothing. Raises DecodeError.

        An index is written before its data: after a kill between the two, or where two processes
        write at once, it names a file of other sources or of another CPU.
        """
        found = super().load(key)
        if found is None:
            return None
        kept_for, data = found
        return data if kept_for == (self._source_stamp, key) else None

    def save(self, key: Any, data: Any) -> None:
        """Keep `data` under `key`, and say in it what it is for."""
        super().save(key, ((self._source_stamp, key), data))
        descriptor = os.open(self._cache_path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _load_index(self) -> Any:
        with contextlib.suppress(FileNotFoundError):
            check(Path(self._index_path))
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        check(Path(self._data_path(name)))
        return super()._load_data(name)

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(filepath) as file:
            written = io.BytesIO()
            yield written
            file.write(seal(written.getvalue()))
            file.flush()
            # Numba renames files that it never syncs: a power cut empties them.
            os.fsync(file.fileno())


class CheckedCache(FunctionCache):
    """Numba's cache of one function. What cannot be read is told once and kept anew."""

    def __init__(
        self,
        function: FunctionType,
        options: dict[str, Any],
        *,
        damaged: Callable[[Exception], None],
        unkept: Callable[[Exception], None],
    ) -> None:
        """Keep what `options` compile. Tell `damaged` what could not be read, `unkept` why nothing is kept.

        RuntimeError: there is no folder for it.
        """
        super().__init__(function)
        self._cache_file = CheckedFile(
            self._cache_path, self._impl.filename_base, self._impl.locator.get_source_stamp()
        )
        self._options = repr(options)
        self._damaged, self._unkept = damaged, unkept

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return (*super()._index_key(sig, codegen), self._options)  # numba's knows the source alone

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """Return the compiled function, None where it is to be compiled."""
        try:
            return super().load_overload(sig, target_context)
        except Exception as error:  # noqa: BLE001  # what another program wrote may raise anything
            self._damaged(error)
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep what was just compiled; a disk that is full or refuses costs the next start its time."""
        try:
            super().save_overload(sig, data)
        except (OSError, DecodeError) as error:
            self._unkept(error)
