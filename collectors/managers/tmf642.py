"""Alarms of a system that speaks TMF642: its list is polled, its events are taken where it has a hub.

The list is what counts; events only make it faster. An alarm is known by what X.733 identifies it by
(object, type, probable cause, specific problem), so that a system that gives new ids after a failover
raises nothing twice.

Source: TM Forum TMF642 Alarm Management API 4.0.0 (Alarm, EventSubscription, listener resources).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from collectors.foreign_sync import AlarmFeed, ForeignAlarm, decoded_alarms
from collectors.foreign_text import clean, integer, iso_ns, json_of
from collectors.http.body import HttpRefusedError
from collectors.http.client import HttpPeer, PeerError, PeerSettings
from collectors.http.credentials import HttpInputSettings
from collectors.http.input import HttpInput, Request, Response
from collectors.polling import Poller
from collectors.sources import Offer
from collectors.ves.events import event_type_of
from runtime.component import Context
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.batch import Batch
from telemetry.errors import ConfigError, DecodeError
from telemetry.x733 import CAUSE_NUMBERS, CLEARED, SEVERITIES

POLL_SECONDS_FLOOR = 5.0
JSON = {"Accept": "application/json", "Content-Type": "application/json"}
_CAUSES = {"".join(filter(str.isalnum, name.lower())): name for name in CAUSE_NUMBERS}


class Tmf642Options(PeerSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "tmf642"; `url` ends in /tmf-api/alarmManagement/v4 or alike."""

    poll_seconds: PositiveSeconds = 60.0  # how often the list is read
    pause_seconds_max: PositiveSeconds = 600.0  # between tries while there is trouble
    page_alarms: PositiveInt = 500  # in one answer
    pages_max: PositiveInt = 500  # of one list
    alarms_max: PositiveInt = 100_000  # open at one time; more are refused and counted
    callback_url: str = ""  # where the other system reaches `callback`; empty = no hub is asked
    callback: HttpInputSettings | None = None  # what listens there


class Tmf642Source:
    """One alarm management system."""

    def __init__(
        self, name: str, options: Tmf642Options, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._options = options
        self._context = context
        self._peer = HttpPeer(options, context.clock)
        self._feed = AlarmFeed(
            name, "tmf642", context, offer, folder, alarms_max=options.alarms_max
        )
        if bool(options.callback_url) != (options.callback is not None):
            raise ConfigError("callback_url and callback are given together, or neither")
        self._http = HttpInput(options.callback, context, self.handle) if options.callback else None
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=POLL_SECONDS_FLOOR,
            pause_seconds_max=options.pause_seconds_max,
        )
        self._registered = False
        self._malformed = context.metrics.counter(
            "tmf642_alarms_malformed_total", "alarms of a TMF642 system that name no object"
        )

    @property
    def port(self) -> int:
        """The port the callback listens on, 0 without one."""
        return self._http.port if self._http else 0

    def start(self) -> None:
        """Listen where events are wanted, and read the list; raises ConfigError."""
        self._feed.load()
        if self._http:
            self._http.start()
        self._poller.start()

    def stop(self) -> None:
        """Leave the hub, stop reading."""
        self._poller.stop()
        if self._registered:
            self._leave_hub()
        if self._http:
            self._http.stop()

    def health(self) -> str:
        """Return what keeps us from the list."""
        return self._poller.health()

    def turn(self) -> float:
        """Read the list once, after a word with the hub."""
        try:
            if self._http and not self._registered:
                self._join_hub()
            self._read_list()
        except PeerError:
            self._registered = False  # who was away may have forgotten us
            raise
        return self._options.poll_seconds

    def handle(self, request: Request) -> Response:
        """Take one event."""
        if request.method != "POST":
            raise HttpRefusedError(405, "events come by POST")
        event = request.body_json()
        alarm = event.get("event", {}).get("alarm") if isinstance(event, dict) else None
        if not isinstance(alarm, dict):
            self._feed.ledger.count(request.peer, undecodable=1)
            raise HttpRefusedError(400, "the body has no event.alarm")
        gone = str(event.get("eventType", "")).lower() == "alarmdeleteevent"
        read = alarm_of(alarm, gone=gone)
        if read is None or "perceivedSeverity" not in alarm:
            self._poller.wake()  # a part of an alarm only: the list has the whole of it
        else:
            self._feed.tell([read])
            self._feed.ledger.count(request.peer, decoded=1)
        return Response(204)

    def _read_list(self) -> None:
        found: dict[str, dict[str, Any]] = {}
        options = self._options
        began_ns = self._context.clock.now_ns()
        total = 0
        for _ in range(options.pages_max):
            answer = self._peer.ask(
                "/alarm",
                {"offset": str(len(found)), "limit": str(options.page_alarms)},
                headers=JSON,
            )
            page = _page(answer.body, options.url)
            total = integer(answer.headers.get("x-total-count"))
            fresh = {_id(alarm): alarm for alarm in page if _id(alarm) not in found}
            found |= fresh
            if not fresh or len(found) >= total > 0 or self._poller.ended:
                break
        else:
            raise PeerError(
                f"{options.url}/alarm: more than {options.pages_max} pages; raise pages_max"
            )
        if len(found) < total:
            raise PeerError(
                f"{options.url}/alarm: {len(found)} of {total} alarms came; nothing is cleared by a "
                "list that is not whole"
            )
        read = [alarm_of(alarm) for alarm in found.values()]
        alarms = [alarm for alarm in read if alarm is not None]
        self._malformed.add(amount=len(read) - len(alarms))
        told = self._feed.tell_all(
            gravest_last(alarms), reason="no longer in the system's list", began_ns=began_ns
        )
        self._feed.ledger.count(
            self._peer.address, decoded=told, undecodable=len(read) - len(alarms)
        )

    def _join_hub(self) -> None:
        self._leave_hub()
        body = json.dumps({"callback": self._options.callback_url, "query": ""}).encode()
        try:
            answer = self._peer.ask("/hub", method="POST", body=body, headers=JSON)
            made = json_of(answer.body)
        except PeerError as error:
            if error.status != 409:  # we are registered already
                raise
            made = {}
        except ValueError as error:
            raise PeerError(
                f"{self._options.url}/hub: the answer cannot be read: {error}"
            ) from error
        self._feed.memory["hub"] = clean(made.get("id"), 200) if isinstance(made, dict) else ""
        self._feed.save()
        self._registered = True

    def _leave_hub(self) -> None:
        hub = self._feed.memory.pop("hub", "")
        self._registered = False
        if hub:
            try:
                self._peer.ask(f"/hub/{hub}", method="DELETE", headers=JSON)
            except PeerError as error:
                self._context.log.info("hub_left_behind %s", error)


def _page(body: bytes, url: str) -> list[dict[str, Any]]:
    try:
        page = json_of(body)
    except ValueError as error:
        raise PeerError(f"{url}/alarm: the answer is no list of alarms: {error}") from error
    if not isinstance(page, list) or not all(isinstance(alarm, dict) for alarm in page):
        raise PeerError(f"{url}/alarm: the answer is no list of alarms")
    return page


def _id(alarm: Mapping[str, Any]) -> str:
    return clean(alarm.get("id"), 200) or clean(alarm.get("href"), 500)


def alarm_of(alarm: Mapping[str, Any], *, gone: bool = False) -> ForeignAlarm | None:
    """Return one alarm in our words, None where it names no object."""
    thing = alarm.get("alarmedObject")
    thing = thing if isinstance(thing, dict) else {}
    entity = clean(thing.get("id"), 500) or clean(thing.get("href"), 500).rpartition("/")[2]
    if not entity:
        return None
    word = clean(alarm.get("perceivedSeverity")).lower()
    state = clean(alarm.get("state")).lower()
    over = gone or word == CLEARED or state in ("cleared", "closed", "terminated")
    event_type = event_type_of(alarm.get("alarmType"))
    cause = clean(alarm.get("probableCause"), 200)
    problem = clean(alarm.get("specificProblem"), 500)
    details = clean(alarm.get("alarmDetails"))
    return ForeignAlarm(
        kind=_CAUSES.get("".join(filter(str.isalnum, cause.lower())), cause) or event_type,
        entity=entity,
        severity=CLEARED if over else word if word in SEVERITIES else "indeterminate",
        title=(problem or details or cause)[:500],
        qualifier=f"{event_type}|{problem}",
        changed_ns=_time_ns(alarm, "alarmClearedTime" if over else "alarmChangedTime"),
        raised_ns=_time_ns(alarm, "alarmRaisedTime"),
        event_type=event_type,
        probable_cause=_CAUSES.get("".join(filter(str.isalnum, cause.lower())), cause) or "other",
        text=details,
        foreign_id=_id(alarm),
        acknowledged=clean(alarm.get("ackState")).lower() == "acknowledged",
        owner=clean(alarm.get("ackUserId"), 100),
        suppressed="planned-work"
        if clean(alarm.get("plannedOutageIndicator")).lower() in _PLANNED
        else "",
        detail={
            name: clean(alarm[name]) if not isinstance(alarm[name], list | dict) else alarm[name]
            for name in _KEPT
            if alarm.get(name) not in (None, "", [])
        },
    )


_PLANNED = ("in_service_planned", "planned", "true", "yes", "inplannedoutage", "in_planned_outage")
_KEPT = ("alarmedObjectType", "sourceSystemId", "externalAlarmId", "isRootCause", "serviceAffecting",
         "affectedService", "parentAlarm", "correlatedAlarm", "crossedThresholdInformation",
         "proposedRepairedActions", "href")  # fmt: skip


def gravest_last(alarms: Sequence[ForeignAlarm]) -> list[ForeignAlarm]:
    """Return alarms so that of several with one identity the gravest open one comes last, and counts."""
    order = (CLEARED, *reversed(SEVERITIES))
    return sorted(alarms, key=lambda alarm: order.index(alarm.severity))


def _time_ns(alarm: Mapping[str, Any], *names: str) -> int:
    for name in (*names, "alarmRaisedTime", "alarmReportingTime"):
        try:
            return max(iso_ns(clean(alarm.get(name))), 0)
        except ValueError:
            continue
    return 0


def parse(data: bytes, name: str) -> list[Batch]:  # noqa: ARG001  # the contract of Reads
    """Return the alarms of a captured list, alarm or event, or raise DecodeError."""
    try:
        document = json_of(data)
    except ValueError as error:
        raise DecodeError("malformed", f"no JSON: {error}") from error
    entries = document if isinstance(document, list) else [document]
    found = []
    for entry in entries:
        if not isinstance(entry, dict):
            raise DecodeError("malformed", "no list of alarms")
        event = entry.get("event")
        alarm = event.get("alarm") if isinstance(event, dict) else entry
        read = alarm_of(alarm) if isinstance(alarm, dict) else None
        if read is None:
            raise DecodeError("malformed", "an alarm names no alarmedObject")
        found.append(read)
    return decoded_alarms("tmf642", found)


SOURCE = Part(
    "alarms of a TMF642 system: its list, and its hub",
    Tmf642Source,
    Tmf642Options,
    reads=Reads(looks_like=lambda head: b'"alarmedObject"' in head, parse=parse),
    sheds="nothing: what a notification did not bring is in the list at the next poll",
)
