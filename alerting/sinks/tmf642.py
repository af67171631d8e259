"""TM Forum TMF642 Alarm v4, the server's side: others list our alarms, take them on, subscribe.

Served by the gate at `options.listen` under /tmf-api/alarm/v4: `GET /alarm` with filters, fields and
paging, `PATCH /alarm/{id}`, the tasks ackAlarms, unAckAlarms, clearAlarms and commentAlarms, and `/hub`.
What it shows are the alarms of this sink's route: those that are up (told again each minute, so that
a restart knows them) and the last that cleared, each in its place from page to page. Each change goes to
every subscriber as an event (`tmf642_hubs`). Acknowledgements, clears and comments become orders for the
node, and are answered when its journal has them (ADR 0014).

Source: TMF642 Alarm Management v4.0.0 (swagger); TMF630 part 1 sections 4.2 to 4.5 and 5 (hub).
"""

import contextlib
import hmac
import itertools
import json
import queue
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from alerting.config import SinkSettings
from alerting.sinks.http import secret
from alerting.sinks.parcel import Parcel
from alerting.sinks.tmf642_http import Answered, Refuse, server
from alerting.sinks.tmf642_hubs import Hubs, TooManyError
from alerting.sinks.tmf642_words import alarm, asked_for, event, flat, matches, select
from alerting.words.alert import Alert
from alerting.words.delivery import Order
from alerting.words.escape import clean
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError

ROOT = "/tmf-api/alarm/v4"
ALARMS_MAX = 20_000
CLEARED_MAX = 1_000
TASKS_MAX = 1_000
ORDERS_MAX = 10_000
JOURNALLED_SECONDS = 15.0  # who orders something is answered by then
LOOPBACK = ("127.0.0.1", "::1", "localhost")
# task: (what it orders, the field that lists the alarms it found)
TASKS = {
    "ackAlarms": ("acknowledge", "ackedAlarm"),
    "unAckAlarms": ("unacknowledge", "unAckedAlarm"),
    "clearAlarms": ("clear", "clearedAlarm"),
    "commentAlarms": ("comment", "commentedAlarm"),
}
EVENTS = {"raised": "AlarmCreateEvent", "cleared": "AlarmStateChangeEvent",
          "closed": "AlarmStateChangeEvent"}  # fmt: skip
CHANGED = "AlarmAttributeValueChangeEvent"


class Tmf642Options(Settings, frozen=True, kw_only=True):
    """Where it listens, and who is told without having asked."""

    listen: str = "127.0.0.1:8642"  # host:port where others ask
    base_url: str = ""  # what stands in hrefs; default: http://<listen>
    listeners: tuple[str, ...] = ()  # callbacks that are always subscribed


class _Asked:
    """A request whose orders are not all in the node's journal yet."""

    def __init__(self, orders: int) -> None:
        self.left = orders
        self.kept = threading.Event()


class Tmf642Sink:
    """Owns an HTTP server. `send` and `hear` are called by the courier, the rest by its threads."""

    batch_max = 1
    repeat_seconds = 60.0
    hear_seconds = 0.2
    shared = True  # what one party orders is news for the others

    def __init__(self, settings: SinkSettings, options: Tmf642Options) -> None:
        host, _, port = options.listen.rpartition(":")
        if not (host and port.isdecimal() and int(port) < 65536):
            raise ConfigError(f"options.listen = {options.listen!r} is not host:port")
        if not all(one.startswith(("http://", "https://")) for one in options.listeners):
            raise ConfigError("options.listeners: each begins with http:// or https://")
        if host.strip("[]") not in LOOPBACK and not settings.token_file:
            raise ConfigError(
                f"options.listen = {options.listen!r} is open to others: name a token_file"
            )
        self._settings = settings
        self._options = options
        self._base = (options.base_url or f"http://{options.listen}").rstrip("/") + ROOT
        self._lock = threading.Lock()
        self._alarms: dict[str, dict[str, Any]] = {}
        self._cleared: OrderedDict[str, None] = OrderedDict()  # of those, the first cleared first
        self._hubs = Hubs(settings, options.listeners)
        self._tasks: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self._orders: queue.Queue[Order] = queue.Queue(ORDERS_MAX)
        self._unkept: dict[str, _Asked] = {}  # by the key of an order that the journal has not yet
        # Keys of orders and tasks: none is given twice, whoever is restarted.
        self._run, self._numbers = secrets.token_hex(8), itertools.count(1)
        self._server: ThreadingHTTPServer | None = None
        self._address = (host.strip("[]"), int(port))

    # ---- the courier's side

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:  # noqa: ARG002
        """Show the change and tell every subscriber, or have it on disk for those that are away."""
        self._serve()
        (parcel,) = parcels
        shown = alarm(parcel.alert, self._base)
        with self._lock:
            self._keep(shown)
        name = EVENTS.get(parcel.alert.state, CHANGED)
        return f"shown; {self._hubs.tell(event(name, parcel.key, shown))}"

    @property
    def trouble(self) -> str:
        """Which subscriber cannot be told, "" where all can."""
        return self._hubs.trouble

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:  # noqa: ARG002
        """Take what is up as the truth: what we show as up and is not, has ended unseen."""
        self._serve()
        up = {alert.id for alert in active}
        with self._lock:
            for shown in list(self._alarms.values()):
                if shown["state"] != "cleared" and shown["id"] not in up:
                    del self._alarms[shown["id"]]
            for alert in active:
                if alert.id not in self._alarms:
                    self._keep(alarm(alert, self._base))

    def hear(self, *, now_ns: int) -> Sequence[Order]:  # noqa: ARG002
        """Return what was ordered since the last call."""
        self._serve()
        made: list[Order] = []
        with contextlib.suppress(queue.Empty):
            while len(made) < 1000:
                made.append(self._orders.get_nowait())
        return made

    def journalled(self, orders: Sequence[Order]) -> None:
        """Hear that the node has orders on disk: who gave them is answered. Called by any thread."""
        with self._lock:
            for order in orders:
                if (asked := self._unkept.pop(order.key, None)) is not None:
                    asked.left -= 1
                    if not asked.left:
                        asked.kept.set()

    def close(self) -> None:
        """Stop listening, and telling."""
        self._hubs.close()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def port(self) -> int:
        """The port that it listens on, 0 = not yet."""
        return int(self._server.server_address[1]) if self._server is not None else 0

    def _keep(self, shown: dict[str, Any]) -> None:
        number = shown["id"]
        if comments := self._alarms.get(number, {}).get("comment"):
            shown["comment"] = comments
        self._alarms[number] = shown
        self._cleared.pop(number, None)
        if shown["state"] == "cleared":
            self._cleared[number] = None
        while len(self._cleared) > CLEARED_MAX or (
            self._cleared and len(self._alarms) > ALARMS_MAX
        ):
            del self._alarms[self._cleared.popitem(last=False)[0]]
        while len(self._alarms) > ALARMS_MAX:
            del self._alarms[next(iter(self._alarms))]

    # ---- the HTTP side

    def _serve(self) -> None:
        if self._server is not None:
            return
        try:
            self._hubs.start()
            self._server = server(self._address, self._answer)
        except OSError as error:
            raise TransientError(
                f"{error.filename or self._options.listen}: {error.strerror}"
            ) from error
        threading.Thread(
            target=self._server.serve_forever, args=(0.1,), daemon=True, name="tmf642"
        ).start()

    def _answer(self, method: str, target: str, authorization: str, data: bytes) -> Answered:
        self._authorize(authorization)
        return self._route(method, target, data)

    def _authorize(self, said: str) -> None:
        if self._settings.token_file:
            token = secret(self._settings.token_file, "token_file")
            if not hmac.compare_digest(said.encode(), f"Bearer {token}".encode()):
                raise Refuse(401, "a bearer token is needed")

    def _route(self, method: str, target: str, data: bytes) -> Answered:
        parts = urlsplit(target)
        if not parts.path.startswith(ROOT + "/"):
            raise Refuse(404, f"this serves {ROOT}/...")
        resource, _, number = parts.path.removeprefix(ROOT + "/").strip("/").partition("/")
        number = unquote(number)
        query = asked_for(parts.query)
        if resource == "alarm" and method == "GET":
            return self._one(number, query) if number else self._list(query)
        if resource == "alarm" and method == "PATCH" and number:
            return self._patch(number, _body(data))
        if resource in TASKS and method == "POST" and not number:
            return self._task(resource, _body(data))
        if resource in TASKS and method == "GET":
            with self._lock:
                found = [t for t in self._tasks.values() if t["@type"] == resource]
            if not number:
                return 200, found, {}
            for task in found:
                if task["id"] == number:
                    return 200, task, {}
            raise Refuse(404, f"no {resource} {number}")
        if resource == "hub" and method == "POST" and not number:
            return self._subscribe(_body(data))
        if resource == "hub" and method == "DELETE" and number:
            if self._hubs.unsubscribe(number):
                return 204, None, {}
            raise Refuse(404, f"no subscription {number}")
        if resource in ("alarm", "hub", *TASKS):
            raise Refuse(405, f"{method} on {resource} is not for others to do")
        raise Refuse(404, f"no resource {resource!r} here")

    def _list(self, query: dict[str, list[str]]) -> Answered:
        try:
            offset, limit = (
                int(query.pop(name, [most])[-1])
                for name, most in (("offset", "0"), ("limit", "1000"))
            )
        except ValueError as error:
            raise Refuse(400, "offset and limit are numbers") from error
        names = ",".join(query.pop("fields", []))
        with self._lock:
            found = [one for one in self._alarms.values() if matches(one, query)]
        page = found[max(offset, 0) : max(offset, 0) + min(max(limit, 0), 1000)]
        headers = {"X-Total-Count": str(len(found)), "X-Result-Count": str(len(page))}
        whole = len(page) == len(found)
        return (200 if whole else 206), [select(one, names) for one in page], headers

    def _one(self, number: str, query: dict[str, list[str]]) -> Answered:
        with self._lock:
            found = self._alarms.get(number)
        if found is None:
            raise Refuse(404, f"no alarm {number}")
        return 200, select(found, ",".join(query.get("fields", []))), {}

    def _patch(self, number: str, body: dict[str, Any]) -> Answered:
        with self._lock:
            found = self._alarms.get(number)
        if found is None:
            raise Refuse(404, f"no alarm {number}")
        known = {"ackState", "ackUserId", "ackSystemId", "comment", "state"}
        if unknown := sorted(set(body) - known):
            raise Refuse(
                400, f"may be changed: {', '.join(sorted(known))}; not {', '.join(unknown)}"
            )
        by = str(body.get("ackUserId") or body.get("ackSystemId") or "TMF642")
        comments = body.get("comment") or []
        if not isinstance(comments, list):
            raise Refuse(400, "comment is a list of comments")
        orders = [self._comment(number, one) for one in comments]
        if "ackState" in body:
            acknowledged = str(body["ackState"]).lower() == "acknowledged"
            do = "acknowledge" if acknowledged else "unacknowledge"
            orders.append(self._order(do, number, by))
        if str(body.get("state", "")).lower() == "cleared":
            orders.append(self._order("clear", number, by))
        self._place(orders)
        with self._lock:
            return 200, dict(self._alarms.get(number, found)), {}

    def _task(self, kind: str, body: dict[str, Any]) -> Answered:
        patterns = body.get("alarmPattern") or []
        if not isinstance(patterns, list) or not all(isinstance(p, dict) and p for p in patterns):
            raise Refuse(400, "alarmPattern is a list of at least one pattern of an alarm's fields")
        if not patterns:
            raise Refuse(400, "alarmPattern is missing")
        with self._lock:
            found = [
                one for one in self._alarms.values()
                if any(matches(one, flat(p)) for p in patterns)
            ]  # fmt: skip
        do, field = TASKS[kind]
        by = str(
            body.get("ackUserId") or body.get("clearUserId") or body.get("ackSystemId") or "TMF642"
        )
        if do == "comment":
            orders = [self._comment(one["id"], body.get("comment") or {}) for one in found]
        else:
            orders = [self._order(do, one["id"], by) for one in found]
        self._place(orders)
        number = self._new_key()
        task = {
            **body, "id": number, "href": f"{self._base}/{kind}/{number}", "@type": kind,
            "state": "done",
            field: [{"id": one["id"], "href": one["href"]} for one in found],
        }  # fmt: skip
        with self._lock:
            self._tasks[number] = task
            while len(self._tasks) > TASKS_MAX:
                self._tasks.popitem(last=False)
        return 201, task, {"Location": task["href"]}

    def _comment(self, number: str, comment: Any) -> Order:
        if not isinstance(comment, dict) or not str(comment.get("comment") or ""):
            raise Refuse(400, "a comment has a text in `comment`")
        by = clean(str(comment.get("userId") or "TMF642"), 100)
        return self._order("comment", number, by, clean(str(comment["comment"])))

    def _order(self, do: str, number: str, by: str, text: str = "") -> Order:
        """Return an order under a key of its own: who asks twice means it twice."""
        return Order(do=do, id=number, by=clean(by, 100), text=text, key=self._new_key())

    def _new_key(self) -> str:
        return f"{self._run}-{next(self._numbers)}"

    def _place(self, orders: Sequence[Order]) -> None:
        """Give orders to the node and wait until its journal has them, or refuse the request.

        All of a request or nothing: who is refused may ask again.
        """
        if not orders:
            return
        if len(orders) > ORDERS_MAX:
            raise Refuse(
                400, f"{len(orders)} alarms are meant, {ORDERS_MAX} at most; ask for fewer"
            )
        asked = _Asked(len(orders))
        with self._lock:
            if self._orders.qsize() + len(orders) > ORDERS_MAX:
                raise Refuse(503, "too many orders wait for the node; try again later")
            self._unkept |= {order.key: asked for order in orders}
            for order in orders:
                self._orders.put_nowait(order)
        try:
            in_time = asked.kept.wait(JOURNALLED_SECONDS)
        finally:
            with self._lock:
                for order in orders:
                    self._unkept.pop(order.key, None)
        if not in_time:
            raise Refuse(
                503, "the node has not journalled it yet; it counts as soon as it has, unless "
                "Tocsin ends before. Look at the alarm before you order it again"
            )  # fmt: skip
        with self._lock:
            for order in orders:
                if order.do == "comment" and order.id in self._alarms:
                    shown = self._alarms[order.id]
                    said = {"comment": order.text, "userId": order.by}
                    comments = [*shown.get("comment", []), said]
                    self._alarms[order.id] = {**shown, "comment": comments[-20:]}

    def _subscribe(self, body: dict[str, Any]) -> Answered:
        callback, query = str(body.get("callback") or ""), str(body.get("query") or "")
        if not callback.startswith(("http://", "https://")):
            raise Refuse(400, "callback is an http or https URL")
        try:
            number = self._hubs.subscribe(callback, query)
        except TooManyError as error:
            raise Refuse(503, str(error)) from error
        made = {"id": number, "callback": callback, "query": query}
        return 201, made, {"Location": f"{self._base}/hub/{number}"}


def _body(data: bytes) -> dict[str, Any]:
    try:
        made = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Refuse(400, f"the body is no JSON: {error}") from error
    if not isinstance(made, dict):
        raise Refuse(400, "the body is no JSON object")
    return made


def _make(settings: SinkSettings, options: Tmf642Options) -> Tmf642Sink:
    return Tmf642Sink(settings, options)


SINK = Part("TMF642 alarm API: list, acknowledge, subscribe", _make, Tmf642Options)
