"""Events and alarms of messages that have rules: each distinct one is read once and remembered.

A message with a rule is rare, but for storms, and those repeat themselves: so distinct messages go
through Python, and rows are made of them by their places.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collectors.syslog import header
from collectors.syslog.columns import plain_text
from collectors.syslog.events import Rule, find, rules_of_app, rules_of_id
from collectors.syslog.senders import message_keys
from runtime.checkpoint import read_array, write_array
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ALARM

MEANINGS_MAX = 4096  # messages whose event and alarm are remembered
SHUT_MAX = 16_384  # ports that someone shut down; the oldest give way
SHUT = "link-admin-down"  # the event of it
_FOLLOWS = "LINEPROTO"  # in the id of what IOS says next of such a port: its line protocol is down


@dataclass(frozen=True, slots=True)
class Rows:
    """The messages that are kept: where they lie, when they were written, by whom."""

    work: NDArray[np.uint8]
    heads: NDArray[np.int64]
    time_ns: NDArray[np.int64]
    arrival_ns: NDArray[np.int64]
    host: NDArray[np.int32]
    app: NDArray[np.int32]
    message_id: NDArray[np.int32]
    frontier_ns: int

    def data(self, row: int) -> bytes:
        """Return a message's text as it came."""
        at, size = int(self.heads[header.TEXT_START, row]), int(self.heads[header.TEXT_SIZE, row])
        return self.work[at : at + size].tobytes()


@dataclass(frozen=True, slots=True)
class Found:
    """What a block's messages mean: event uint32[rows], codes of `events`; changes of alarms in order."""

    event: NDArray[np.uint32]
    events: tuple[str, ...]
    alarms: Batch | None


Meaning = tuple[str, dict[str, Any] | None]  # an event; an alarm's row without times


class Meanings:
    """Knows which names have rules, and what was said before."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._of_id: dict[int, tuple[Rule, ...]] = {}  # by row of the name
        self._of_app: dict[int, tuple[Rule, ...]] = {}
        self._known: dict[int, Meaning] = {}  # by key
        self._shut: dict[int, None] = {}  # alarms of ports that someone shut down, in that order

    def learn(self, row: int, word: str) -> tuple[bool, bool]:
        """Find the rules of a name; return whether there are any for it as an id, and as a program."""
        of_id, of_app = (rules_of_id(word), rules_of_app(word)) if word else ((), ())
        if of_id:
            self._of_id[row] = of_id
        if of_app:
            self._of_app[row] = of_app
        return bool(of_id), bool(of_app)

    def forget(self) -> None:
        """Forget what was said: hosts have other rows now."""
        self._known.clear()

    def clear(self) -> None:
        """Forget what was said, and which names have rules."""
        self._known.clear()
        self._of_id.clear()
        self._of_app.clear()

    def of(self, rows: Rows, ruled: NDArray[np.int64], hosts: list[str], words: list[str]) -> Found:
        """Return what the rows mean of which `ruled` have rules."""
        event = np.zeros(rows.time_ns.size, np.uint32)
        if not ruled.size:
            return Found(event, ("",), None)
        keys = np.empty(ruled.size, np.uint64)
        message_keys(
            rows.work, rows.heads[header.TEXT_START], rows.heads[header.TEXT_SIZE],
            rows.message_id, rows.app, rows.host, ruled, keys,
        )  # fmt: skip
        distinct, first, which = np.unique(keys, return_index=True, return_inverse=True)
        which = which.reshape(-1)
        meanings = [
            self._meaning(key, rows, r, hosts, words)
            for key, r in zip(distinct.tolist(), ruled[first].tolist(), strict=True)
        ]
        places = {"": 0}
        codes = [places.setdefault(said, len(places)) for said, _ in meanings]
        event[ruled] = np.array(codes, np.uint32)[which]
        return Found(event, tuple(places), self._alarms(rows, ruled, meanings, which))

    def _meaning(self, key: int, rows: Rows, r: int, hosts: list[str], words: list[str]) -> Meaning:
        known = self._known.get(key)
        if known is not None:
            return known
        word, app = int(rows.message_id[r]), int(rows.app[r])
        text = plain_text(rows.data(r))
        found = find(self._of_id.get(word) or self._of_app.get(app, ()), text)
        made: Meaning = ("", None)
        if found is not None:
            alarm = found.alarm(
                source=self._source, host=hosts[rows.host[r]], message_id=words[word], text=text
            )
            made = (found.event, alarm)
        if len(self._known) >= MEANINGS_MAX:
            self._known.clear()
        self._known[key] = made
        return made

    def _explained(self, meanings: list[Meaning], which: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which messages only say once more that a port is down which someone shut down: no fault.

        The next word on the port itself, up or down, ends that.
        """
        explained = np.zeros(which.size, np.bool_)
        ids = [int(alarm["alarm_id"]) if alarm is not None else -1 for _, alarm in meanings]
        shut_here = {ids[n] for n, (said, _) in enumerate(meanings) if said == SHUT} - {-1}
        looked_at = np.array([one in self._shut or one in shut_here for one in ids])
        for row in np.flatnonzero(looked_at[which]).tolist():
            (said, alarm), port = meanings[which[row]], ids[which[row]]
            assert alarm is not None
            if said == SHUT:
                self._shut.pop(port, None)
                self._shut[port] = None
            elif _FOLLOWS in alarm["foreign_id"] and alarm["state"] == "raised":
                explained[row] = port in self._shut
            else:
                self._shut.pop(port, None)
        while len(self._shut) > SHUT_MAX:
            del self._shut[next(iter(self._shut))]
        return explained

    def snapshot(self, out: Any) -> None:
        """Write which ports someone shut down."""
        write_array(out, "shut", np.fromiter(self._shut, np.uint64, len(self._shut)))

    def restore(self, state: Any) -> None:
        """Take them back."""
        shut = read_array(state, "shut")
        self._shut = {} if shut is None else dict.fromkeys(shut.astype(np.uint64).tolist())

    def _alarms(
        self,
        rows: Rows,
        ruled: NDArray[np.int64],
        meanings: list[Meaning],
        which: NDArray[np.int64],
    ) -> Batch | None:
        """Return the change of an alarm for each message that moves one, as a copy of its meaning's."""
        moving = [place for place, (_, alarm) in enumerate(meanings) if alarm is not None]
        if not moving:
            return None
        place_of = np.full(len(meanings), -1)
        place_of[moving] = np.arange(len(moving))
        place = place_of[which]
        moves = (place >= 0) & ~self._explained(meanings, which)
        place, at_ns = place[moves], rows.arrival_ns[ruled[moves]]
        made = batch_from_rows(ALARM, [meanings[one][1] or {} for one in moving]).take(place)
        columns = dict(made.columns)
        raised = np.array([(meanings[one][1] or {})["state"] == "raised" for one in moving])[place]
        columns["changed_ns"] = at_ns
        columns["raised_ns"] = np.where(raised, at_ns, 0)
        columns["cleared_ns"] = np.where(raised, 0, at_ns)
        return Batch(
            ALARM, columns, made.blobs, made.dictionaries, self._source,
            int(rows.arrival_ns[-1]), rows.frontier_ns,
        )  # fmt: skip
