"""Who promised to speak every so often, and who stopped. Pure: times come in, names come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Watched:
    """One sender."""

    promised_seconds: float
    heard_ns: int
    silent: bool = False


class Silence:
    """Senders that promised heartbeats; at most `watched_max`, later ones are not watched."""

    def __init__(self, *, missed: int, watched_max: int) -> None:
        self._missed = missed
        self._watched_max = watched_max
        self._watched: dict[str, Watched] = {}
        self.not_watched = 0

    def promise(self, name: str, seconds: float, now_ns: int) -> None:
        """A heartbeat came, the next is promised in so many seconds; 0 ends the watch."""
        if seconds <= 0:
            self._watched.pop(name, None)
        elif name in self._watched or len(self._watched) < self._watched_max:
            self._watched[name] = Watched(seconds, now_ns)
        else:
            self.not_watched += 1

    def heard(self, name: str, now_ns: int) -> None:
        """Anything else came from it: it lives, but a silence that was told ends by a heartbeat."""
        watched = self._watched.get(name)
        if watched is not None and not watched.silent:
            watched.heard_ns = now_ns

    def is_silent(self, name: str) -> bool:
        """Whether its silence was told and has not ended."""
        watched = self._watched.get(name)
        return watched is not None and watched.silent

    def overdue(self, now_ns: int) -> list[tuple[str, float, float]]:
        """Return (name, seconds of silence, seconds promised) of those whose silence is news."""
        return [
            (name, (now_ns - w.heard_ns) / 1e9, w.promised_seconds)
            for name, w in self._watched.items()
            if not w.silent and now_ns - w.heard_ns > self._missed * w.promised_seconds * 1e9
        ]

    def told(self, name: str) -> None:
        """Its silence was told."""
        if name in self._watched:
            self._watched[name].silent = True

    def state(self) -> dict[str, Any]:
        """Return what must survive: who is watched, and whose silence was told."""
        return {name: [w.promised_seconds, w.silent] for name, w in self._watched.items()}

    def restore(self, state: Mapping[str, Any], now_ns: int) -> None:
        """Continue; while we were away nobody was late."""
        self._watched = {
            name: Watched(seconds, now_ns, silent) for name, (seconds, silent) in state.items()
        }
