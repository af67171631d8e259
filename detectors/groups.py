"""Members of a group that stop moving together: links of a bundle, redundant sensors, legs of one service.

Nobody names the groups: a series' peers are found from what it did. Each value is seen as its distance from
the series' own slow level in usual sizes; of the last 64 ticks of those, the (up to three) series most
like it, with a correlation of .8 or more, become its peers. From then on the difference between a series
and the mean of its peers is watched, over its usual size. The whole group rising together is no break.

For what no look at a single series can tell: a member that takes no part in a common rise, a leg that
drifts away within its own band. Blind to groups that always stood still, to the first two hours (64 ticks to
find peers, 64 to know the usual difference), and to series beyond `members_max` of a view: comparing
all with all costs 60 ns a pair, every 64th tick. A break that lasts dissolves the group within a day or so.

Source: pairs by correlation as in Lakhina, Crovella and Diot (2004) for traffic that shares its causes;
Montgomery, regression adjustment of control charts, for the watched difference.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors import exceedances
from detectors.config import DetectionSettings
from detectors.detector import ScoreColumns
from detectors.rows import RowArrays
from detectors.seasonal import rates
from detectors.tails import Tails
from runtime.checkpoint import read_array, write_array
from runtime.kernels import kernel
from runtime.registry import Part
from runtime.settings import PositiveInt, Settings
from telemetry.batch import Batch
from telemetry.views import View

HISTORY = 64  # ticks that are compared
PEERS = 3
ALIKE, APART = 0.8, 0.3  # correlation that makes a peer, and below which it is none any more
APART_TIMES = 20  # comparisons in a row: about a day of minutes
LEVEL_SHARE, USUAL_SHARE, NOW_SHARE = 1.0 / 128.0, 1.0 / 256.0, 0.5
WARM, SETTLED = 64.0, 64.0  # ticks known; ticks with peers
FIRST_UNIT, LEAST_UNIT, STEP_UP = 3.0, 2.0, 0.1
CROSSINGS, QUIET_TICKS, TICKS_PER_DAY_MOST = 2.0, 144.0, 1440.0

(SEEN, LEVEL, SPREAD, NOW, USUAL, UNIT, QUIET, AGE, ASTRAY) = range(9)
STATE = 9
VALUE_MOST = 1e30


@kernel("i8(const i8[::1], const f4[:,::1], i8, i4[:,::1], f4[:,::1])")
def compare(
    member: NDArray[np.int64],
    history: NDArray[np.float32],
    peers_max: int,
    out_peer: NDArray[np.int32],
    out_alike: NDArray[np.float32],
) -> int:
    """Find for each member those most like it.

    In      member int64[N], places in the history; history float32[M, 64]; peers_max, at most 3.
    Out     peer int32[N, 3], places, -1 = none, the most like it first, of equals the lower place; alike
            float32[N, 3], their correlation.
    Returns N, or -1 when a length is wrong: nothing was written.
    """
    rows = member.size
    if out_peer.shape[0] != rows or out_alike.shape[0] != rows or history.shape[1] != HISTORY:
        return -1
    if out_peer.shape[1] != PEERS or out_alike.shape[1] != PEERS or peers_max > PEERS:
        return -1
    for a in range(rows):
        for k in range(PEERS):
            out_peer[a, k], out_alike[a, k] = -1, 0.0
    for a in range(rows):
        for b in range(a):
            # Columns are normalised: their product is the correlation.
            one_sum = two_sum = 0.0
            for k in range(0, HISTORY, 2):
                one_sum += np.float64(history[member[a], k]) * np.float64(history[member[b], k])
                two_sum += np.float64(history[member[a], k + 1]) * np.float64(
                    history[member[b], k + 1]
                )
            alike = one_sum + two_sum
            if alike < ALIKE:
                continue
            for one, other in ((a, b), (b, a)):
                at = peers_max
                while at > 0 and (out_peer[one, at - 1] < 0 or out_alike[one, at - 1] < alike):
                    at -= 1
                for k in range(peers_max - 1, at, -1):
                    out_peer[one, k], out_alike[one, k] = (
                        out_peer[one, k - 1],
                        out_alike[one, k - 1],
                    )
                if at < peers_max:
                    out_peer[one, at], out_alike[one, at] = member[other], alike
    return rows


class GroupOptions(Settings, frozen=True, kw_only=True):
    """Options of kind "group"."""

    members_max: PositiveInt = 1024  # series of a view that are compared with each other


class GroupDetector:
    """Watches each series' distance from its peers; 410 bytes a member."""

    def __init__(self, view: View, settings: DetectionSettings, options: GroupOptions) -> None:
        self._tails = Tails(view.scored, settings.warmup_seconds)
        self.rows = RowArrays(
            view.scored, rows_max=options.members_max,
            state=(np.float32, (STATE,)), history=(np.float32, (HISTORY,)),
            peer=(np.int32, (PEERS,)),  # place + 1, 0 = none
            runs=(np.float32, (exceedances.STATE,)), step=(np.float32, ()),
        )  # fmt: skip
        self._ticks = np.zeros(len(view.scored), np.int64)

    def admit(self, frame: Batch) -> None:
        """Make room for the frame's rows and clear those that changed hands. Before `score`."""
        self.rows.admit(frame)

    def score(self, frame: Batch, measure: str, out: ScoreColumns) -> None:
        """Write score columns; expected is what the peers make of the value."""
        at, places, value = self._members(frame, measure)
        state, _, peers, z = self._look(places, value)
        tick_s, n = float(frame["tick_seconds"][0]), len(at)
        here = ScoreColumns.empty(n)
        self._tails.judge(self.rows, measure, places, np.abs(z), tick_s, here)
        size = _size(state)
        known = np.isfinite(peers)
        expected = state[:, LEVEL] + np.where(known, peers, 0.0) * size
        room = np.where(known, (1.25 * state[:, USUAL] + 0.1) * state[:, UNIT], 0.0) * size
        out.expected[at], out.lower[at], out.upper[at] = expected, expected - room, expected + room
        out.p_value[at], out.score[at], out.z[at] = here.p_value, here.score, z
        missing = np.isnan(rates(frame, measure)[:-1])
        out.score[:-1][missing] = out.z[:-1][missing] = np.nan

    def learn(self, frame: Batch, measure: str, mask: NDArray[np.bool_]) -> None:
        """Learn rows where mask is set; every 64th tick look for peers."""
        at, places, value = self._members(frame, measure)
        m, tick_s = self.rows.measures.index(measure), float(frame["tick_seconds"][0])
        _, distance, peers, z = self._look(places, value)
        self.rows["step"][places] = tick_s
        self._tails.learn(self.rows, measure, places, np.abs(z), tick_s)
        nth = int(self._ticks[m] % HISTORY)
        self.rows["history"][places, nth] = np.where(np.isfinite(distance), distance, 0.0)
        self._fold(places, value, distance - peers, np.abs(z), mask[at], tick_s)
        self._ticks[m] += 1
        if nth == HISTORY - 1:
            self._regroup(m)

    def _members(
        self, frame: Batch, measure: str
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        """Return which rows of the frame are members, their places and values (absurd ones missing)."""
        at = np.flatnonzero(frame["row"][:-1] < self.rows.rows_max)
        value = rates(frame, measure)[at]
        return (
            at,
            self.rows.places(frame, measure)[at],
            np.where(np.abs(value) <= VALUE_MOST, value, np.nan),
        )

    def _look(
        self, places: NDArray[np.int64], value: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], ...]:
        """Return state, distances from the own levels, the peers' mean distances, and scores with sign."""
        state = self.rows["state"][places].astype(np.float64)
        distance = np.where(
            state[:, SEEN] >= WARM,
            np.clip((value - state[:, LEVEL]) / _size(state), -20.0, 20.0),
            np.nan,
        )
        everyone = np.full(len(self.rows["state"]) + 1, np.nan)
        everyone[places + 1] = distance  # place 0 stays NaN: no peer
        theirs = everyone[self.rows["peer"][places]]
        there = np.isfinite(theirs)
        count = there.sum(axis=1)
        peers = np.where(
            count > 0, np.where(there, theirs, 0.0).sum(axis=1) / np.maximum(count, 1), np.nan
        )
        gap = distance - peers
        now = state[:, NOW] + NOW_SHARE * (np.where(np.isfinite(gap), gap, 0.0) - state[:, NOW])
        judged = np.isfinite(gap) & (state[:, AGE] >= SETTLED)
        z = now / (1.25 * state[:, USUAL] + 0.1) / np.maximum(state[:, UNIT], LEAST_UNIT)
        z = np.where(judged, z, 0.0)
        z[np.isnan(value)] = np.nan
        return state, distance, peers, z

    def _fold(
        self, places: NDArray[np.int64], value: NDArray[np.float64], gap: NDArray[np.float64],
        score: NDArray[np.float64], mask: NDArray[np.bool_], tick_s: float,
    ) -> None:  # fmt: skip
        came = ~np.isnan(value) & (mask | (self.rows["state"][places, SEEN] > 0.0))
        places, value, gap, score, mask = (one[came] for one in (places, value, gap, score, mask))
        s = self.rows["state"][places].astype(np.float64)
        new, warm = s[:, SEEN] == 0.0, s[:, SEEN] >= WARM
        s[new, LEVEL], s[new, UNIT], s[new, QUIET] = value[new], FIRST_UNIT, 1e9
        share = np.where(mask, np.maximum(LEVEL_SHARE, 1.0 / (s[:, SEEN] + 1.0)), 0.0)
        off = value - s[:, LEVEL]
        off = np.where(warm, np.clip(off, -4.0 * _size(s), 4.0 * _size(s)), off)
        s[:, LEVEL] += share * off
        s[:, SPREAD] += share * (np.abs(off) - s[:, SPREAD])
        s[:, SEEN] = np.minimum(s[:, SEEN] + 1.0, 1e7)
        # ---- the difference from the peers
        beside = np.isfinite(gap)
        gap = np.where(beside, gap, 0.0)
        s[:, NOW] += np.where(beside, NOW_SHARE * (gap - s[:, NOW]), 0.0)
        usual = np.where(mask & beside, np.maximum(USUAL_SHARE, 1.0 / (s[:, AGE] + 1.0)), 0.0)
        size = np.abs(s[:, NOW])
        size = np.where(
            s[:, AGE] >= SETTLED, np.minimum(size, 3.0 * (1.25 * s[:, USUAL] + 0.1)), size
        )
        s[:, USUAL] += usual * (size - s[:, USUAL])
        s[:, AGE] = np.where(beside, np.minimum(s[:, AGE] + 1.0, 1e6), s[:, AGE])
        # ---- the controller, as in series_kernels
        per_day = min(86_400.0 / tick_s, TICKS_PER_DAY_MOST)
        crossed = (score >= 1.0) & (s[:, QUIET] > QUIET_TICKS)
        s[:, QUIET] = np.where(crossed, 0.0, np.minimum(s[:, QUIET] + 1.0, 1e9))
        s[:, UNIT] *= np.where(crossed, np.exp(STEP_UP), 1.0) * max(
            1.0 - STEP_UP * CROSSINGS / per_day, 0.5
        )
        s[:, UNIT] = np.maximum(s[:, UNIT], LEAST_UNIT)
        self.rows["state"][places] = s

    def _regroup(self, m: int) -> None:
        """Compare what all members did in the last 64 ticks: find peers for those without, part others."""
        width = len(self.rows.measures)
        around = self.rows["history"].astype(np.float64)
        around -= around.mean(axis=1, keepdims=True)
        size = np.sqrt((around**2).sum(axis=1, keepdims=True))
        normal = np.where(size > 1e-3, around / np.maximum(size, 1e-12), 0.0)
        history: NDArray[np.float32] = normal.astype(np.float32)
        state, peer = self.rows["state"], self.rows["peer"]
        known = state[m::width, SEEN] >= WARM + HISTORY
        member = np.flatnonzero(known) * width + m
        found = np.empty((len(member), PEERS), np.int32)
        compare(member, history, PEERS, found, np.empty((len(member), PEERS), np.float32))
        for one, places in zip(member.tolist(), found, strict=True):
            mine = peer[one][peer[one] > 0] - 1
            if mine.size:
                alike = float((history[mine] @ history[one]).mean())
                state[one, ASTRAY] = state[one, ASTRAY] + 1.0 if alike < APART else 0.0
                gone = (state[mine, SEEN] < WARM + HISTORY).any()  # a peer's row is in new hands
                if state[one, ASTRAY] < APART_TIMES and not gone:
                    continue
            peer[one] = places + 1
            for k in (NOW, USUAL, AGE, ASTRAY):
                state[one, k] = 0.0

    def snapshot(self, out: Any) -> None:
        """Write all state."""
        self.rows.snapshot(out)
        self._tails.snapshot(out)
        write_array(out, "ticks", self._ticks)

    def restore(self, state: Any) -> None:
        """Take it back."""
        self.rows.restore(state)
        self._tails.restore(state)
        ticks = read_array(state, "ticks")
        if ticks is not None and len(ticks) == len(self._ticks):
            self._ticks = np.array(ticks)


def _size(state: NDArray[np.float64]) -> NDArray[np.float64]:
    """A usual deviation from the own level."""
    made: NDArray[np.float64] = 1.25 * state[:, SPREAD] + 1e-3 * np.abs(state[:, LEVEL]) + 1e-9
    return made


def _make(view: View, settings: DetectionSettings, options: GroupOptions) -> GroupDetector:
    return GroupDetector(view, settings, options)


DETECTOR = Part("members of a group that stop moving together", _make, GroupOptions)
