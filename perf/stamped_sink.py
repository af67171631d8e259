"""A file sink that notes when it is called and when its lines are on disk: as a plug-in brings its own."""

import time
from collections.abc import Sequence
from pathlib import Path

from alerting.config import SinkSettings
from alerting.sinks.lines import LineSink
from alerting.sinks.parcel import Parcel
from runtime.registry import NoOptions, Part

KIND = "stamped"


class StampedSink(LineSink):
    """Beside its file lies `<file>.stamps`: called, done (time.perf_counter), alerts of each call."""

    def __init__(self, settings: SinkSettings) -> None:
        super().__init__(settings)
        self._path = Path(settings.path)
        self._stamps = stamps_of(self._path).open("a", buffering=1)

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Write a line each, and the stamps of it."""
        called = time.perf_counter()
        answer = super().send(parcels, now_ns=now_ns)
        self._stamps.write(f"{called} {time.perf_counter()} {len(parcels)}\n")
        return answer

    def close(self) -> None:
        """Close the file of stamps."""
        self._stamps.close()


def stamps_of(path: Path) -> Path:
    """Return where the stamps of a sink's file are."""
    return path.with_name(f"{path.name}.stamps")


def install(folder: Path) -> None:
    """Make the kind known to whoever has `folder` on its path, as the installation of a package does."""
    known = folder / "stamped_sink-1.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: stamped-sink\nVersion: 1\n")
    (known / "entry_points.txt").write_text(f"[tocsin.sinks]\n{KIND} = perf.stamped_sink:SINK\n")


def _make(settings: SinkSettings, options: NoOptions) -> StampedSink:  # noqa: ARG001
    return StampedSink(settings)


SINK = Part("lines in a file, with the times of each call", _make, needs=("path",))
