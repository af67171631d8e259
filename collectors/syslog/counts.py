"""Counts of log lines as series: (host, severity) and (host, pattern), each second that has lines.

A new or bursting pattern is then a series like any other to detection. What is over a bound counts
under `__other__` of its host.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.syslog.senders import (
    COUNT,
    OTHER,
    SECOND,
    SLOT,
    SLOT_HOST,
    SLOT_SEVERITY,
    count_lines,
)
from runtime.checkpoint import read_arrays, write_array
from telemetry.batch import Batch
from telemetry.identity import id_text
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import SAMPLE

SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
METRIC = "log_lines"


class LineCounts:
    """Counts of the second that is open; `slots_max` series, `per_host_max` patterns of a host."""

    def __init__(self, *, slots_max: int, hosts_max: int, per_host_max: int) -> None:
        slots_max = max(slots_max, 64)
        places = 1 << (2 * slots_max - 1).bit_length()
        self._keys = np.zeros(places, np.uint64)
        self._key_slots = np.zeros(places, np.int32)
        self._slot = np.zeros((SLOT, slots_max), np.int64)
        self._pattern = np.zeros(slots_max, np.uint64)
        self._series = np.zeros(slots_max, np.uint64)
        self._host_patterns = np.zeros(max(hosts_max, 16), np.int64)
        self._state = np.array([-1, 0], np.int64)
        self._named = 0
        self._per_host_max = per_host_max
        self._names = SeriesNames(series_max=2 * slots_max)
        self.cleared = 0

    def add(
        self,
        host_key: NDArray[np.uint64],
        host: NDArray[np.int32],
        pattern_id: NDArray[np.uint64],
        severity: NDArray[np.int64],
        arrival_ns: NDArray[np.int64],
        hosts: list[str],
    ) -> list[Batch]:
        """Count lines in the order of arrival; return the counts of seconds that are over."""
        made: list[Batch] = []
        first = 0
        while first < host.size:
            first = count_lines(
                host_key, host, pattern_id, severity, arrival_ns, first, self._per_host_max,
                int(self._state[1]), self._keys, self._key_slots, self._slot, self._pattern,
                self._host_patterns, self._state,
            )  # fmt: skip
            if first == host.size:
                break
            if int(arrival_ns[first]) // SECOND == self._state[0]:
                made += self.clear(hosts)  # no slot is free: those that are used now come back
            else:
                made += self.flush(hosts)
        self._name(hosts)
        return made

    def over(self, frontier_ns: int, hosts: list[str]) -> list[Batch]:
        """Return the counts of the open second if it is over by the frontier."""
        if self._state[0] < 0 or frontier_ns < (int(self._state[0]) + 1) * SECOND:
            return []
        return self.flush(hosts)

    def clear(self, hosts: list[str]) -> list[Batch]:
        """Return the counts and forget every slot: rows of hosts have moved, or no slot is free."""
        second = int(self._state[0])
        made = self.flush(hosts)
        self._keys[:], self._host_patterns[:] = 0, 0
        self._state[:] = second, 0
        self._named = 0
        self.cleared += 1
        return made

    def flush(self, hosts: list[str]) -> list[Batch]:
        """Return the counts of the open second, and close it."""
        self._name(hosts)
        taken = int(self._state[1])
        slots = np.flatnonzero(self._slot[COUNT, :taken])
        second = int(self._state[0])
        self._state[0] = -1
        if not slots.size:
            return []
        start_ns = second * SECOND
        columns = {
            "time_ns": np.full(slots.size, start_ns, np.int64),
            "arrival_ns": np.full(slots.size, start_ns + SECOND - 1, np.int64),
            "series_id": self._series[slots],
            "value": self._slot[COUNT, slots].astype(np.float64),
            "kind": np.full(slots.size, SampleKind.DELTA, np.uint8),
        }
        self._slot[COUNT, :taken] = 0
        fresh = self._names.new()
        samples = Batch(SAMPLE, columns, source="syslog", arrival_ns=start_ns + SECOND - 1)
        return [samples] if fresh is None else [fresh, samples]

    def _name(self, hosts: list[str]) -> None:
        """Give slots that were taken since the last call the ids of their series."""
        taken = int(self._state[1])
        for slot in range(self._named, taken):
            entity = hosts[int(self._slot[SLOT_HOST, slot])]
            severity = int(self._slot[SLOT_SEVERITY, slot])
            pattern = int(self._pattern[slot])
            if severity >= 0:
                dimensions = {"severity": SEVERITIES[severity]}
            else:
                dimensions = {"pattern": id_text(pattern) if pattern else OTHER}
            self._series[slot] = self._names.id(entity, METRIC, dimensions, unit="{line}")
        self._named = taken

    def snapshot(self, out: Any) -> None:
        """Write the open second and the slots."""
        taken = int(self._state[1])
        places = np.flatnonzero(self._keys)
        write_array(out, "count_state", self._state)
        write_array(out, "count_place", places)
        write_array(out, "count_key", self._keys[places])
        write_array(out, "count_slot_of", self._key_slots[places])
        write_array(out, "count_slot", np.ascontiguousarray(self._slot[:, :taken].T))
        write_array(out, "count_pattern", self._pattern[:taken])
        write_array(out, "count_series", self._series[:taken])
        write_array(out, "count_of_host", self._host_patterns)

    def restore(self, state: Any) -> None:
        """Take them back; with other bounds than they were made with they begin anew."""
        parts = ("state", "place", "key", "slot_of", "slot", "pattern", "series", "of_host")
        found = read_arrays(state, *(f"count_{name}" for name in parts))
        if found is None:
            return
        counting, place, key, slot_of, slot, pattern, series, of_host = found
        taken = len(pattern)
        if (
            taken > self._pattern.size
            or of_host.size != self._host_patterns.size
            or (place.size and int(place.max()) >= self._keys.size)
        ):
            return
        self._state[:] = counting
        self._keys[place], self._key_slots[place] = key, slot_of
        self._slot[:, :taken] = slot.T
        self._pattern[:taken], self._series[:taken] = pattern, series
        self._host_patterns[:] = of_host
        self._named = taken
