"""What came within a second, collapsed: one row for each stretch in which a resource stayed in a state.

A storm of the same trap is one row with its count. A resource that goes up and down keeps the order
of its changes, up to a bound; beyond it the last state is right and the count tells the rest.
"""

from dataclasses import dataclass, field
from typing import Any

STRETCHES_MAX = 8  # rows of one resource and alarm type within a second


@dataclass(slots=True)
class News:
    """What a notification says: an alarm's state, or an event without a rule (`severity` "")."""

    identity: str
    severity: str
    row: dict[str, Any]  # arguments of alarm_row, or of a log row
    series: tuple[str, str]  # device and trap, under which it is counted


@dataclass(slots=True)
class Stretch:
    """One row to be."""

    news: News
    first_ns: int
    last_ns: int
    count: int = 1
    folded: int = 0  # changes of state that are not rows of their own
    number: int = 1


@dataclass(slots=True)
class Runs:
    """The stretches of the second that is open."""

    second: int = 0
    stretches: list[Stretch] = field(default_factory=list)
    _last: dict[str, Stretch] = field(default_factory=dict)

    def add(self, news: News, at_ns: int) -> None:
        """Count one notification."""
        last = self._last.get(news.identity)
        if last is None or (last.news.severity != news.severity and last.number < STRETCHES_MAX):
            made = Stretch(news, at_ns, at_ns, number=last.number + 1 if last else 1)
            self.stretches.append(made)
            self._last[news.identity] = made
            return
        if last.news.severity != news.severity:
            last.news = news
            last.folded += 1
        last.count += 1
        last.last_ns = at_ns

    def close(self) -> list[Stretch]:
        """Return the stretches in order and begin anew."""
        made, self.stretches = self.stretches, []
        self._last = {}
        return made

    def put(self, stretches: list[Stretch]) -> None:
        """Take stretches back, as a snapshot had them."""
        self.stretches = stretches
        self._last = {one.news.identity: one for one in stretches}
