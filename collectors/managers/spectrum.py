"""Alarms of DX NetOps (CA) Spectrum, read from OneClick over REST: new ones by time, all by list.

A list of all alarms every `resync_seconds` is what clears, counts second occurrences and survives a
failover; in between new alarms are asked for by their creation time, or pulled from a subscription.
The id of an alarm changes at a failover, so an alarm is known by its model and probable cause.

Source: Broadcom DX NetOps Spectrum "Using Alarm Resources" and "subscription" (REST), knowledge
articles 42242 (second occurrences) and 392206 (paging); attribute ids as public clients name them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import escape

from collectors.foreign_sync import AlarmFeed, ForeignAlarm, Open, decoded_alarms
from collectors.foreign_text import clean, integer, seconds_ns
from collectors.http.client import Answer, HttpPeer, PeerError, PeerSettings
from collectors.managers.spectrum_answers import (
    ACKNOWLEDGED,
    ADDRESS,
    ALARM_ID,
    ALARMED_HANDLE,
    ASSIGNEE,
    CAUSE,
    CAUSES,
    COLLECTIONS,
    CREATED,
    EVENT_TEXT,
    LANDSCAPE,
    MODEL_HANDLE,
    MODEL_NAME,
    MODEL_TYPE,
    OCCURRENCES,
    PRIMARY,
    SEVERITY,
    STATUS,
    SYMPTOMS,
    TICKET,
    TITLE,
    TOPOLOGY,
    Found,
    Page,
    notified,
    page_of,
    subscription_of,
)
from collectors.polling import Poller
from collectors.sources import Offer
from runtime.component import Context
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.x733 import severity_from

POLL_SECONDS_FLOOR = 5.0
OVERLAP_SECONDS = 60
REQUEST = "http://www.ca.com/spectrum/restful/schema/request"
FILTER = "http://www.ca.com/spectrum/restful/schema/filter"
STATES = {4: "maintenance", 5: "suppressed"}  # values of severity that are none

ATTRIBUTES = (
    ALARM_ID, MODEL_HANDLE, ALARMED_HANDLE, MODEL_NAME, MODEL_TYPE, SEVERITY, CREATED, TITLE, CAUSE,
    ACKNOWLEDGED, STATUS, OCCURRENCES, ADDRESS, ASSIGNEE, TICKET, PRIMARY, SYMPTOMS, CAUSES, TOPOLOGY,
    COLLECTIONS, LANDSCAPE, EVENT_TEXT,
)  # fmt: skip
KEPT = {
    ADDRESS: "address", MODEL_TYPE: "model_type", STATUS: "status", TICKET: "ticket",
    SYMPTOMS: "symptoms", CAUSES: "causes", LANDSCAPE: "landscape", TOPOLOGY: "topology",
    COLLECTIONS: "collections",
}  # fmt: skip


class SpectrumOptions(PeerSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "spectrum"; `url` ends in /spectrum/restful."""

    format: Literal["json", "xml"] = "json"  # of answers
    landscapes: tuple[str, ...] = ()  # handles, such as "0x100000"; empty = all
    attributes: tuple[str, ...] = ()  # more attribute ids, kept with the alarm
    subscription: bool = False  # pull new alarms from a subscription instead of asking by time
    poll_seconds: PositiveSeconds = 30.0  # how often what changed is asked for
    resync_seconds: PositiveSeconds = 120.0  # how often all open alarms are read and compared
    pause_seconds_max: PositiveSeconds = 600.0  # between tries while there is trouble
    page_alarms: PositiveInt = 1_000  # in one answer
    pages_max: PositiveInt = 500  # of one list
    alarms_max: PositiveInt = 200_000  # open at one time; more are refused and counted
    # Beyond: its clock is off, times are corrected.
    clock_tolerance_seconds: PositiveSeconds = 300.0
    severities: dict[str, str] = {}  # {"1": "warning"}: another meaning than the usual


class SpectrumSource:
    """One OneClick server."""

    def __init__(
        self, name: str, options: SpectrumOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._options = options
        self._context = context
        self._peer = HttpPeer(options, context.clock)
        self._accept = {"Accept": f"application/{options.format}"}
        self._attributes = tuple(dict.fromkeys((*ATTRIBUTES, *options.attributes)))
        self._feed = AlarmFeed(
            name, "spectrum", context, offer, folder, alarms_max=options.alarms_max
        )
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=options.pause_seconds_max,
        )
        self._resync_ns = 0
        self._malformed = context.metrics.counter(
            "spectrum_alarms_malformed_total", "alarms of Spectrum without a model or a cause"
        )

    def start(self) -> None:
        """Continue from what is kept, and read the whole list first."""
        self._feed.load()
        self._poller.start()

    def stop(self) -> None:
        """Stop reading, and end the subscription."""
        self._poller.stop()
        subscription = self._feed.memory.pop("subscription", "")
        if subscription:
            try:
                self._peer.ask(f"/subscription/{subscription}", method="DELETE")
            except PeerError as error:  # it ends by itself when nobody pulls
                self._context.log.info("subscription_left_behind %s", error)

    def health(self) -> str:
        """Return what keeps us from reading."""
        return self._poller.health()

    def turn(self) -> float:
        """Read once: what is new, or all."""
        now_ns = self._context.clock.now_ns()
        try:
            if now_ns >= self._resync_ns or not self._read_news():
                self._read_all()
                self._resync_ns = now_ns + round(self._options.resync_seconds * 1e9)
        except PeerError:
            self._resync_ns = 0
            raise
        return self._options.poll_seconds

    # ---- reading

    def _read_all(self) -> None:
        """Read the whole list and clear what is gone."""
        if self._options.subscription and not self._feed.memory.get("subscription"):
            self._subscribe()  # before the list, so that nothing falls between the two
        query = [("attr", attribute) for attribute in self._attributes]
        query += [("landscape", landscape) for landscape in self._options.landscapes]
        query.append(("throttlesize", str(self._options.page_alarms)))
        found, total = self._pages(self._peer.ask("/alarms", query, headers=self._accept))
        if len(found) < total:
            raise PeerError(
                f"{self._options.url}/alarms: {len(found)} of {total} alarms came; nothing is "
                "cleared by a list that is not whole"
            )
        self._remember_newest(found)
        alarms, marks = self._alarms(found)
        told = self._feed.tell_all(alarms, reason="no longer in Spectrum's list", marks=marks)
        self._count(told, len(found) - len(alarms))

    def _read_news(self) -> bool:
        """Read new alarms; return False where only the whole list can tell what happened."""
        if self._options.subscription:
            found = self._pulled()
        else:
            since = integer(self._feed.memory.get("created")) - OVERLAP_SECONDS
            body = created_since(since, self._attributes, self._options.page_alarms)
            headers = {**self._accept, "Content-Type": "application/xml"}
            answer = self._peer.ask("/alarms", method="POST", body=body, headers=headers)
            found, _ = self._pages(answer)
        if found and other_ids(found, self._feed.alarms.open.values()):
            return False  # a failover, or a second alarm of the same cause: the list will tell
        self._remember_newest(found)
        alarms, marks = self._alarms(found)
        self._count(self._feed.tell(alarms, marks=marks), len(found) - len(alarms))
        return True

    def _pages(self, answer: Answer) -> tuple[list[Found], int]:
        """Return (all alarms of an answer and the pages after it, how many there should be)."""
        found: dict[str, Found] = {}
        total = 0
        for _ in range(self._options.pages_max):
            page = self._page(answer)
            total = max(total, page.total)
            fresh = [alarm for alarm in page.alarms if alarm.alarm_id not in found]
            found |= {alarm.alarm_id: alarm for alarm in fresh}
            if not page.following or not fresh or self._poller.ended:
                return list(found.values()), total
            answer = self._peer.follow(page.following, self._accept)
        raise PeerError(
            f"{self._options.url}/alarms: more than {self._options.pages_max} pages; name "
            "`landscapes` or raise `pages_max`"
        )

    def _page(self, answer: Answer) -> Page:
        self._learn_clock(answer)
        try:
            return page_of(answer.body)
        except ValueError as error:
            raise PeerError(
                f"{self._options.url}/alarms: the answer is no list of alarms: {error}"
            ) from error

    def _subscribe(self) -> None:
        answer = self._peer.ask(
            "/subscription",
            method="POST",
            body=subscription_request(self._attributes),
            headers={**self._accept, "Content-Type": "application/xml"},
        )
        made = subscription_of(answer.body)
        if not made:
            raise PeerError(
                f"{self._options.url}/subscription: the answer names no subscription-id"
            )
        self._feed.memory["subscription"] = made
        self._feed.save()

    def _pulled(self) -> list[Found]:
        """Return what the subscription has for us; one that is lost is made again."""
        subscription = self._feed.memory.get("subscription", "")
        try:
            answer = self._peer.ask(f"/subscription/{subscription}", headers=self._accept)
        except PeerError as error:
            if error.status in (400, 404, 410):
                self._feed.memory["subscription"] = ""  # who pulls too late loses it
            raise
        self._learn_clock(answer)
        try:
            return notified(answer.body)
        except ValueError as error:
            raise PeerError(
                f"{self._options.url}/subscription: the answer cannot be read: {error}"
            ) from error

    def _learn_clock(self, answer: Answer) -> None:
        offset_ns = answer.clock_offset_ns(self._context.clock.now_ns())
        if offset_ns is None:
            return
        if abs(offset_ns) <= self._options.clock_tolerance_seconds * 1e9:
            offset_ns = 0
        if abs(offset_ns - integer(self._feed.memory.get("clock_offset_ns"))) > 60 * 10**9:
            self._context.log.warning(
                "clock_off server=%s seconds=%d; its times are corrected; check its NTP",
                self._options.url,
                offset_ns // 10**9,
            )
            self._feed.memory["clock_offset_ns"] = offset_ns

    def _remember_newest(self, found: Sequence[Found]) -> None:
        newest = max((integer(alarm.text(CREATED)) for alarm in found), default=0)
        memory = self._feed.memory
        memory["created"] = max(integer(memory.get("created")), newest)

    # ---- meaning

    def _alarms(self, found: Sequence[Found]) -> tuple[list[ForeignAlarm], dict[int, str]]:
        offset_ns = integer(self._feed.memory.get("clock_offset_ns"))
        good = [alarm for alarm in found if integer(alarm.base[0]) and integer(alarm.base[1])]
        self._malformed.add(amount=len(found) - len(good))
        places = places_of(good, self._feed.alarms.open.values())
        made, marks = [], {}
        for alarm in good:
            told = alarm_of(alarm, places[alarm.alarm_id], offset_ns, self._options)
            made.append(told)
            marks[self._feed.alarms.id_of(told)] = f"{alarm.alarm_id} {alarm.text(CREATED)}"
        return made, marks

    def _count(self, told: int, malformed: int) -> None:
        self._feed.ledger.count(
            self._peer.address,
            decoded=told,
            undecodable=malformed,
            clock_offset_ns=integer(self._feed.memory.get("clock_offset_ns")),
        )


def places_of(found: Sequence[Found], known: Iterable[Open]) -> dict[str, int]:
    """Return for each alarm id which one it is among those of its model and cause: 0, 1, ...

    An alarm that is known keeps its place: by its id; where the ids changed, by title and creation
    time, then by title, then as they come.
    """
    free: dict[tuple[str, str], dict[int, Open]] = {}
    for old in known:
        handle, _, place_text = old.qualifier.partition("#")
        free.setdefault((handle, old.kind), {})[int(place_text or 0)] = old
    made: dict[str, int] = {}
    rules: tuple[Callable[[Found, Open], bool], ...] = (
        lambda new, old: old.marks.split(" ")[0] == new.alarm_id,
        lambda new, old: old.title == new.text(TITLE)[:500] and old.marks.split(" ")[-1] == new.text(CREATED),
        lambda new, old: old.title == new.text(TITLE)[:500],
        lambda new, old: True,
    )  # fmt: skip
    for rule in rules:
        for alarm in found:
            places = free.get(alarm.base, {})
            if alarm.alarm_id in made:
                continue
            at = next((at for at, old in sorted(places.items()) if rule(alarm, old)), None)
            if at is not None:
                made[alarm.alarm_id] = at
                del places[at]
    taken: dict[tuple[str, str], set[int]] = {}
    for alarm in found:
        if alarm.alarm_id in made:
            taken.setdefault(alarm.base, set()).add(made[alarm.alarm_id])
    for alarm in found:
        if alarm.alarm_id not in made:
            used = taken.setdefault(alarm.base, set())
            place = next(at for at in range(len(used) + 1) if at not in used)
            used.add(place)
            made[alarm.alarm_id] = place
    return made


def other_ids(found: Sequence[Found], known: Iterable[Open]) -> bool:
    """Whether one of these has the model and cause of a known alarm, but another id."""
    asked = {alarm.base: alarm.alarm_id for alarm in found}
    return any(
        asked.get((old.qualifier.partition("#")[0], old.kind), old.marks.split(" ")[0])
        != old.marks.split(" ")[0]
        for old in known
    )


def alarm_of(alarm: Found, place: int, offset_ns: int, options: SpectrumOptions) -> ForeignAlarm:
    """Return an alarm in our words; `place` tells several of one model and cause apart."""
    handle, cause = alarm.base
    word = integer(alarm.text(SEVERITY), -1)
    severity = options.severities.get(str(word)) or severity_from("spectrum", word)
    created_ns = seconds_ns(alarm.text(CREATED))
    return ForeignAlarm(
        kind=cause,
        entity=entity_of(alarm),
        severity="indeterminate" if word in STATES else severity,
        title=clean(alarm.text(TITLE), 500) or f"Spectrum alarm {cause}",
        qualifier=f"{handle}#{place}" if place else handle,
        changed_ns=max(created_ns - offset_ns, 0),
        raised_ns=max(created_ns - offset_ns, 0),
        text=clean(alarm.text(EVENT_TEXT)),
        foreign_id=alarm.alarm_id,
        occurrence=integer(alarm.text(OCCURRENCES), 1),
        acknowledged=alarm.text(ACKNOWLEDGED).lower() == "true",
        owner=clean(alarm.text(ASSIGNEE), 100),
        suppressed=STATES.get(word, ""),
        detail={
            **{name: clean(text) for key, name in KEPT.items() if (text := alarm.text(key))},
            **{key: clean(alarm.text(key)) for key in options.attributes if alarm.text(key)},
            "model": handle,
            "secondary": alarm.text(PRIMARY).lower() == "false",
        },
    )


def entity_of(alarm: Found) -> str:
    """Return the managed object: a port's model is called `<device>_<interface>`.

    >>> entity_of(Found("1", {MODEL_NAME: "ber-agg-01_xe-0/0/17", MODEL_TYPE: "Gen_IF_Port"}))
    'ber-agg-01:xe-0/0/17'
    """
    name = clean(alarm.text(MODEL_NAME), 255) or alarm.base[0]
    device, _, port = name.rpartition("_")
    is_port = alarm.text(MODEL_TYPE).endswith("IF_Port")
    return f"{device}:{port}" if is_port and device and port else name


def created_since(seconds: int, attributes: Sequence[str], page_alarms: int) -> bytes:
    """Return the request for alarms created at that time or later (server's clock, epoch seconds)."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<rs:alarm-request throttlesize="{page_alarms}" xmlns:rs="{REQUEST}">'
        f'<rs:attribute-filter><search-criteria xmlns="{FILTER}"><filtered-models>'
        f'<greater-than-or-equals><attribute id="{CREATED}"><value>{max(seconds, 0)}</value></attribute>'
        f"</greater-than-or-equals></filtered-models></search-criteria></rs:attribute-filter>"
        f"{_requested(attributes)}</rs:alarm-request>"
    ).encode()


def subscription_request(attributes: Sequence[str]) -> bytes:
    """Return the request for a subscription that is pulled."""
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<rs:subscription-request xmlns:rs="{REQUEST}">'
        f"<rs:alarm-request>{_requested(attributes)}</rs:alarm-request></rs:subscription-request>"
    ).encode()


def _requested(attributes: Sequence[str]) -> str:
    return "".join(f'<rs:requested-attribute id="{escape(a)}"/>' for a in attributes)


def parse(data: bytes, name: str) -> list[Batch]:  # noqa: ARG001  # the contract of Reads
    """Return the alarms of a captured answer, or raise DecodeError."""
    try:
        found = page_of(data).alarms
    except ValueError as error:
        raise DecodeError("malformed", f"no list of alarms: {error}") from error
    places, options = places_of(found, ()), SpectrumOptions(url="")
    return decoded_alarms(
        "spectrum", [alarm_of(alarm, places[alarm.alarm_id], 0, options) for alarm in found]
    )


SOURCE = Part(
    "alarms of DX NetOps Spectrum (OneClick REST)",
    SpectrumSource,
    SpectrumOptions,
    reads=Reads(looks_like=lambda head: b"alarm-response-list" in head, parse=parse),
    sheds="nothing: what is not read stays there until the next poll",
)
