"""Local time: where people get up an hour earlier on a Sunday in March, their traffic does.

A daily profile in UTC meets each change of the clocks as a day that comes an hour early or late. With
the zone of the people behind the series it does not.
"""

from datetime import UTC, datetime, tzinfo

import numpy as np
from numpy.typing import NDArray

from telemetry.zones import zone_of

SAME_S = 900  # offsets change at full quarters of an hour


class LocalTime:
    """Seconds since 1970 as clocks on the wall of a zone count them."""

    def __init__(self, zone: str) -> None:
        """Raise ConfigError for a zone that is none."""
        self._zone: tzinfo | None = zone_of(zone) if zone != "UTC" else None
        self._quarter, self._offset = -1, 0

    def __call__(self, time_s: int) -> int:
        """Return local seconds.

        >>> LocalTime("Europe/Vienna")(1_774_746_000) - 1_774_746_000  # an hour before summer begins
        7200
        """
        if self._zone is None:
            return time_s
        if time_s // SAME_S != self._quarter:
            moment = datetime.fromtimestamp(time_s, UTC).astimezone(self._zone)
            offset = moment.utcoffset()
            self._offset = int(offset.total_seconds()) if offset is not None else 0
            self._quarter = time_s // SAME_S
        return time_s + self._offset

    def of(self, time_s: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return local seconds of many times; those that no calendar has stay as they are."""
        if self._zone is None:
            return time_s
        quarters, place = np.unique(time_s // SAME_S, return_inverse=True)
        offsets = np.zeros(len(quarters), np.int64)
        for k, quarter in enumerate(quarters.tolist()):
            try:
                offsets[k] = self(quarter * SAME_S) - quarter * SAME_S
            except (ValueError, OverflowError, OSError):
                offsets[k] = 0
        made: NDArray[np.int64] = time_s + offsets[place]
        return made
