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
from telemetry.batch import Batch, batch_from_rows
from telemetry.schemas import ALARM

MEANINGS_MAX = 4096  # messages whose event and alarm are remembered


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
        moves = place >= 0
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
