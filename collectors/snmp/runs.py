"""What came within a second, collapsed: what is new is told at once, what repeats it is counted.

A storm of the same trap is one row at its beginning and one with the count of the rest. A resource
that goes up and down keeps the order of its changes, up to a bound; beyond it the last state is told
at the end of the second, with the count.
"""

from dataclasses import dataclass, field
from typing import Any

CHANGES_MAX = 8  # rows of one resource and alarm type within a second


@dataclass(slots=True)
class News:
    """What a notification says: an alarm's state, or an event without a rule (`severity` "")."""

    identity: str
    severity: str
    row: dict[str, Any]  # arguments of alarm_row, or of a log row
    series: tuple[str, str]  # device and trap, under which it is counted
    clear_after_seconds: float = 0.0  # of an alarm whose end nobody tells


@dataclass(slots=True)
class Standing:
    """Where a resource stands, and what of it is not told yet."""

    news: News
    last_ns: int
    number: int = 1  # of changes in this second
    more: int = 0  # notifications that have no row of their own
    folded: int = 0  # changes of state among them


@dataclass(slots=True)
class Runs:
    """The second that is open."""

    second: int = 0
    standing: dict[str, Standing] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)  # by device and trap

    def add(self, news: News, at_ns: int) -> bool:
        """Count one notification; return whether it is to be told at once."""
        self.counts[news.series] = self.counts.get(news.series, 0) + 1
        known = self.standing.get(news.identity)
        if known is None:
            self.standing[news.identity] = Standing(news, at_ns)
            return True
        known.last_ns = at_ns
        if known.news.severity != news.severity:
            known.news = news
            known.number += 1
            if known.number <= CHANGES_MAX:
                return True
            known.folded += 1
        known.more += 1
        return False

    def close(self) -> tuple[list[Standing], dict[tuple[str, str], int]]:
        """Return what is not told yet, and the counts; begin anew."""
        rest = [one for one in self.standing.values() if one.more]
        counts, self.counts, self.standing = self.counts, {}, {}
        return rest, counts
