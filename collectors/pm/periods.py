"""What PM files told of each object and granularity period, so that a repeat or a correction is known.

Elements send files again, managers merge and re-export them, and a corrected file has other contents
under any name: it is the counters of one object in one period that count once.
"""

from collections import OrderedDict
from enum import Enum

from collectors.pm.xml import Measurement
from telemetry.identity import stable_id


class Repeat(Enum):
    """What a measurement is to those before it."""

    NEW = "new"
    SAME = "same"  # said before with the same numbers
    CORRECTED = "corrected"  # said before with others: the newer count


class Periods:
    """Hashes of what was told, at most `kept_max`, the oldest give way. Two phases: `see`, `commit`."""

    def __init__(self, kept_max: int) -> None:
        self._kept_max = kept_max
        self._told: OrderedDict[int, int] = OrderedDict()
        self._seen: dict[int, int] = {}

    def see(self, one: Measurement) -> Repeat:
        """Return what a measurement is; it is known from `commit` on."""
        names = ",".join(sorted(one.values))
        key = stable_id(f"{one.dn}|{one.begin_ns}|{one.seconds}|{names}")
        value = stable_id(repr(sorted(one.values.items())))
        before = self._told.get(key)
        self._seen[key] = value
        if before is None:
            return Repeat.NEW
        return Repeat.SAME if before == value else Repeat.CORRECTED

    def commit(self) -> None:
        """The node has all that was seen."""
        for key, value in self._seen.items():
            self._told[key] = value
            self._told.move_to_end(key)
        self.forget()
        while len(self._told) > self._kept_max:
            self._told.popitem(last=False)

    def forget(self) -> None:
        """The node has not: it will be seen again."""
        self._seen = {}
