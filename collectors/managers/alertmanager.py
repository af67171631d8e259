"""Alerts of Prometheus Alertmanager: its webhook (version 4), and its list where it can be asked.

An alert is known by its label set, as in Alertmanager (the fingerprint). A webhook that was missed is
made up for by the list, where `api` names the server; without it, by the repeat that Alertmanager
sends while an alert fires.

Source: Prometheus Alertmanager 0.34, "webhook_config" (payload version 4) and api/v2/openapi.yaml.
"""

from collections.abc import Iterable, Mapping
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
from runtime.component import Context
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, PositiveSeconds
from telemetry.batch import Batch
from telemetry.errors import DecodeError
from telemetry.identity import id_text, stable_id
from telemetry.x733 import CLEARED, SEVERITIES, severity_from

REPORT_SECONDS = 10.0
# Words that rule files use beside ours.
WORDS = {
    "page": "critical", "disaster": "critical", "fatal": "critical", "error": "major",
    "high": "major", "average": "minor", "low": "warning", "notice": "warning",
}  # fmt: skip


class AlertmanagerOptions(HttpInputSettings, frozen=True, kw_only=True):
    """`[sources.<name>.options]` of kind "alertmanager"."""

    listen: str = "http://127.0.0.1:9095"  # http(s)://host:port for the webhook
    # The first of these labels that an alert has is its entity, the first of the others a part of it.
    entity_labels: tuple[str, ...] = ("node", "host", "hostname", "device", "instance", "target")
    # See entity_labels.
    part_labels: tuple[str, ...] = (
        "interface",
        "ifName",
        "ifDescr",
        "port",
        "peer",
    )
    severities: dict[str, str] = {}  # {"p1": "critical"}: words of your rules
    api: PeerSettings | None = None  # url = "http://alertmanager:9093": its list is read as well
    resync_seconds: PositiveSeconds = 60.0  # how often the list of `api` is read
    pause_seconds_max: PositiveSeconds = 600.0  # between tries while there is trouble
    alarms_max: PositiveInt = 100_000  # open at one time; more are refused and counted


class AlertmanagerSource:
    """Takes webhooks, and reads the list of one Alertmanager."""

    def __init__(
        self, name: str, options: AlertmanagerOptions, context: Context, offer: Offer, folder: Path
    ) -> None:
        self._options = options
        self._context = context
        self._peer = HttpPeer(options.api, context.clock) if options.api else None
        self._http = HttpInput(options, context, self.handle)
        self._feed = AlarmFeed(
            name, "alertmanager", context, offer, folder, alarms_max=options.alarms_max
        )
        self._poller = Poller(
            context,
            self.turn,
            floor_seconds=REPORT_SECONDS,
            pause_seconds_max=options.pause_seconds_max,
        )
        self._resync_ns = 0

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._http.port

    def start(self) -> None:
        """Listen, or raise ConfigError."""
        self._feed.load()
        self._http.start()
        self._poller.start()

    def stop(self) -> None:
        """Stop listening; Alertmanager sends again what was not answered."""
        self._http.stop()
        self._poller.stop()

    def health(self) -> str:
        """Return what keeps us from the list."""
        return self._poller.health()

    def handle(self, request: Request) -> Response:
        """Take one webhook."""
        if request.method != "POST":
            raise HttpRefusedError(405, "alerts come by POST")
        try:
            alarms, truncated = read_webhook(request.body_json(), self._options)
        except ValueError as error:
            self._feed.ledger.count(request.peer, undecodable=1)
            raise HttpRefusedError(400, str(error)) from error
        self._feed.tell(alarms)
        self._feed.ledger.count(request.peer, decoded=len(alarms), lost_wire=truncated)
        if truncated:
            self._context.log.warning(
                "webhook_truncated peer=%s alerts=%d; raise max_alerts of the receiver",
                request.peer,
                truncated,
            )
            self._resync_ns = 0
            self._poller.wake()
        return Response(200)

    def turn(self) -> float:
        """Read the list where it is due; report the ledger."""
        now_ns = self._context.clock.now_ns()
        if self._peer is not None and now_ns >= self._resync_ns:
            answer = self._peer.ask("/api/v2/alerts", headers={"Accept": "application/json"})
            try:
                alarms = read_list(json_of(answer.body), self._options)
            except ValueError as error:
                raise PeerError(
                    f"/api/v2/alerts: the answer is no list of alerts: {error}"
                ) from error
            told = self._feed.tell_all(
                alarms, reason="no longer in Alertmanager's list", began_ns=now_ns
            )
            self._feed.ledger.count(self._peer.address, decoded=told)
            self._resync_ns = now_ns + round(self._options.resync_seconds * 1e9)
        else:
            self._feed.tell([])
        return min(REPORT_SECONDS, self._options.resync_seconds)


def read_webhook(document: object, options: AlertmanagerOptions) -> tuple[list[ForeignAlarm], int]:
    """Return (alarms, alerts left out by the sender) of a payload, or raise ValueError."""
    if not isinstance(document, dict):
        raise ValueError("the body is no object")  # noqa: TRY004  # the value is a peer's
    if document.get("version", "4") != "4":
        raise ValueError(f"version {document['version']!r} is not '4'")
    alarms = _alarms(document.get("alerts"), options)
    return alarms, max(integer(document.get("truncatedAlerts")), 0)


def read_list(document: object, options: AlertmanagerOptions) -> list[ForeignAlarm]:
    """Return the alarms of the list of alerts, or raise ValueError."""
    return _alarms(document, options)


def _alarms(alerts: object, options: AlertmanagerOptions) -> list[ForeignAlarm]:
    if not isinstance(alerts, list):
        raise ValueError("it has no list of alerts")  # noqa: TRY004
    made = []
    for place, alert in enumerate(alerts):
        labels = alert.get("labels") if isinstance(alert, dict) else None
        if not isinstance(labels, dict) or not labels:
            raise ValueError(f"alerts[{place}] has no labels")
        made.append(alarm_of(alert, options))
    return made


def alarm_of(alert: Mapping[str, Any], options: AlertmanagerOptions) -> ForeignAlarm:
    """Return one alert in our words: the same ones whether the webhook or the list tells it."""
    labels = {clean(k, 200): clean(v, 500) for k, v in alert["labels"].items()}
    notes = alert.get("annotations")
    notes = {clean(k): clean(v) for k, v in notes.items()} if isinstance(notes, dict) else {}
    state = alert.get("status")
    suppressed = ""
    if isinstance(state, dict):  # in the list; a word in webhooks
        suppressed = next((why for key, why in _SUPPRESSED.items() if state.get(key)), "")
    name = labels.get("alertname", "alert")
    summary = _first(("summary", "message", "title"), notes)
    description = _first(("description", "message"), notes)
    fingerprint = clean(alert.get("fingerprint"), 64) or id_text(
        stable_id(repr(sorted(labels.items())))
    )
    resolved = state == "resolved"
    return ForeignAlarm(
        kind=name,
        entity=entity_of(labels, options),
        severity=CLEARED
        if resolved
        else severity_of(labels.get("severity", ""), options.severities),
        title=(summary or description or name)[:500],
        qualifier=fingerprint,
        changed_ns=_time_ns(alert.get("endsAt") if resolved else alert.get("startsAt")),
        raised_ns=_time_ns(alert.get("startsAt")),
        text=description,
        foreign_id=fingerprint,
        suppressed=suppressed,
        detail={
            "labels": labels,
            "graph": clean(alert.get("generatorURL")),
            "runbook": notes.get("runbook_url", ""),
        },
    )


_SUPPRESSED = {"silencedBy": "silence", "inhibitedBy": "inhibited", "mutedBy": "muted"}


def severity_of(word: str, more: Mapping[str, str]) -> str:
    """Return our severity for a word of somebody's rules."""
    found = more.get(word) or WORDS.get(word.lower()) or severity_from("alertmanager", word)
    return found if found in SEVERITIES else "indeterminate"


def entity_of(labels: Mapping[str, str], options: AlertmanagerOptions) -> str:
    """Return the managed object that an alert's labels name.

    >>> entity_of({"instance": "ber-1:9100", "ifName": "xe-0/0/1"}, AlertmanagerOptions())
    'ber-1:xe-0/0/1'
    """
    name = next((key for key in options.entity_labels if labels.get(key)), "")
    thing = labels.get(name, "") or labels.get("job", "") or "alertmanager"
    host, _, port = thing.rpartition(":")
    if name == "instance" and host and port.isdigit():
        thing = host.strip("[]")
    part = _first(options.part_labels, labels)
    return f"{thing}:{part}" if part else thing


def _first(names: Iterable[str], texts: Mapping[str, str]) -> str:
    return next((texts[name] for name in names if texts.get(name)), "")


def _time_ns(value: object) -> int:
    """Return a time of an alert, 0 for none or the zero time of Go.

    In milliseconds, as the list has it: the webhook tells the same time in finer ones.
    """
    try:
        return max(iso_ns(clean(value)), 0) // 1_000_000 * 1_000_000
    except ValueError:
        return 0


def parse(data: bytes, name: str) -> list[Batch]:  # noqa: ARG001  # the contract of Reads
    """Return the alarms of a captured webhook or list, or raise DecodeError."""
    options = AlertmanagerOptions()
    try:
        document = json_of(data)
        is_list = isinstance(document, list)
        alarms = read_list(document, options) if is_list else read_webhook(document, options)[0]
    except ValueError as error:
        raise DecodeError("malformed", f"no alerts: {error}") from error
    return decoded_alarms("alertmanager", alarms)


SOURCE = Part(
    "alerts of Prometheus Alertmanager by webhook",
    AlertmanagerSource,
    AlertmanagerOptions,
    reads=Reads(
        looks_like=lambda head: b'"groupKey"' in head or b'"alertname"' in head, parse=parse
    ),
    sheds="nothing: while the node takes no records a sender is told 503 and sends again",
)
