"""Grafana: incidents as annotations, each a region that ends when its incident clears.

An annotation is known by a tag of its own (the alert's id and when it was raised), so that a repeat
after a lost answer changes the one there is. Texts are HTML to Grafana and are escaped.

Source: Grafana HTTP API, "Annotations": GET and POST /api/annotations, PATCH /api/annotations/:id.
"""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from alerting.config import SinkSettings
from alerting.sinks.http import accepted, ask_json, host_of
from alerting.sinks.parcel import Parcel
from alerting.words.alert import Alert
from alerting.words.escape import ESCAPES
from alerting.words.wording import is_over
from runtime.registry import WEB, Part
from runtime.settings import Settings
from telemetry.errors import TransientError

MILLISECOND_NS = 1_000_000
TAG_CHARACTERS_MAX = 100  # of its table of tags; longer ones are an error of its database


class GrafanaOptions(Settings, frozen=True, kw_only=True):
    """Where annotations show."""

    dashboard_uid: str = ""  # one dashboard alone; "" = every one that asks for the tag
    tags: tuple[str, ...] = ("tocsin",)  # beside kind, severity and the alert's own


class GrafanaSink:
    """One annotation for each alert, changed as the alert changes."""

    batch_max = 1
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: GrafanaOptions) -> None:
        self._settings = settings
        self._options = options
        self._url = f"{settings.url.rstrip('/')}/api/annotations"

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Make the alert's annotation, or change it; the same again changes nothing."""
        (parcel,) = parcels
        body = annotation(parcel.alert, self._options)
        found = self._find(body["tags"][0])
        if found is None:
            made = accepted(self._url, ask_json(self._settings, "POST", self._url, body)).json()
            return f"annotation {_number(made)} added"
        url = f"{self._url}/{found}"
        change = {name: body[name] for name in ("time", "timeEnd", "text", "tags")}
        accepted(url, ask_json(self._settings, "PATCH", url, change)).json()
        return f"annotation {found} changed"

    def _find(self, tag: str) -> int | None:
        url = f"{self._url}?{urlencode({'tags': tag, 'type': 'annotation', 'limit': 2})}"
        found = accepted(url, ask_json(self._settings, "GET", url)).json()
        if not isinstance(found, list):
            raise TransientError(f"{host_of(url)} answered no list of annotations")
        return _number(found[0]) if found else None

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Annotations stay: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def _number(answer: Any) -> int:
    number = answer.get("id") if isinstance(answer, dict) else None
    if not isinstance(number, int):
        raise TransientError("Grafana's answer has no annotation id")
    return number


def annotation(alert: Alert, options: GrafanaOptions) -> dict[str, Any]:
    """Return the annotation of an alert; its first tag is its own."""
    escape = ESCAPES["html"]
    begins = alert.raised_ns // MILLISECOND_NS
    ends = (alert.cleared_ns or alert.changed_ns) // MILLISECOND_NS if is_over(alert) else begins
    link = str(alert.explain.get("picture", ""))
    shown = f'<br><a href="{escape(link)}">picture</a>' if link.startswith("http") else ""
    made: dict[str, Any] = {
        "time": begins,
        "timeEnd": max(ends, begins),
        "tags": [
            f"tocsin:{alert.id}:{begins}",
            *options.tags,
            alert.kind[:TAG_CHARACTERS_MAX],
            alert.severity,
        ],
        "text": f"{escape(alert.title)}<br>{escape(str(alert.explain.get('short', '')))}{shown}",
    }
    return made | ({"dashboardUID": options.dashboard_uid} if options.dashboard_uid else {})


def _make(settings: SinkSettings, options: GrafanaOptions) -> GrafanaSink:
    return GrafanaSink(settings, options)


SINK = Part("annotations in Grafana", _make, GrafanaOptions, needs=("url",), schemes=WEB)
