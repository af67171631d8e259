"""What operators and other systems ask for, understood: its types, bounds and names are right, or it is refused.

It is understood before it is journalled: what is journalled is done again by every restart.
"""

import difflib
import json
from typing import Annotated, Any, Literal

import msgspec

from alerting.config import Day
from alerting.life.triage import KIND as TRIAGE
from alerting.life.triage import VERDICTS
from alerting.life.triage import check as check_triage
from alerting.life.windows import (
    MOMENT_NS_MAX,
    OUT_OF_SERVICE,
    PLANNED_WORK,
    SHELVED,
    SILENCE,
    Window,
)
from alerting.records.alarm import NEVER_NS
from runtime.mistakes import understand
from telemetry.errors import ConfigError
from telemetry.identity import id_text, stable_id

KINDS = (
    "acknowledge", "unacknowledge", "shelve", "unshelve", "silence", "expire", "maintenance",
    "out_of_service", "close", "merge", "split", "feedback", TRIAGE,
)  # fmt: skip
# An action that hides alarms: why they are hidden then.
HIDES = {
    "shelve": SHELVED,
    "silence": SILENCE,
    "maintenance": PLANNED_WORK,
    "out_of_service": OUT_OF_SERVICE,
}
NEEDS = {
    "acknowledge": ("alarm", "alarms", "incident"),
    "unacknowledge": ("alarm", "alarms", "incident"),
    "unshelve": ("alarm", "alarms", "incident"),
    "close": ("alarm", "alarms", "incident"),
    "merge": ("incidents",),
    "split": ("incident",),
    "feedback": ("incident", "alarm", "alarms"),
    "out_of_service": ("nodes", "entities"),
    "expire": ("name",),
}
ABOUT = (
    "alarm", "alarms", "incident", "sites", "nodes", "links", "entities", "objects", "kinds", "sources",
)  # fmt: skip
LISTED_MAX = 1000
WORKS_MAX = 10_000
NAME_CHARACTERS_MAX = 500
NOTE_CHARACTERS_MAX = 1000
SECONDS_MAX = 10 * 365 * 86_400

Id = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{16})?\Z")]
Ids = Annotated[tuple[Id, ...], msgspec.Meta(max_length=LISTED_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_CHARACTERS_MAX)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=LISTED_MAX)]
Moment = Annotated[int, msgspec.Meta(ge=0, le=MOMENT_NS_MAX)]


class Ask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of an action: whom it is about, when, and who says so; each kind takes its part of it."""

    alarm: Id = ""
    alarms: Ids = ()
    incident: Id = ""
    incidents: Ids = ()
    sites: Names = ()
    nodes: Names = ()
    links: Names = ()
    entities: Names = ()
    objects: Names = ()  # of whatever sort they are
    kinds: Names = ()
    sources: Names = ()
    behind: bool = False
    name: Name = ""
    start_ns: Moment | None = None  # None = now
    end_ns: Moment = 0  # 0 = after `seconds`, or when it is ended
    seconds: Annotated[float, msgspec.Meta(gt=0, le=SECONDS_MAX)] | None = None
    days: tuple[Day, ...] = ()
    zone: str = "UTC"
    cancelled: bool = False
    over: bool = False
    windows: Annotated[tuple["Ask", ...], msgspec.Meta(max_length=WORKS_MAX)] = ()
    until: Literal["", "clear", "worse"] = ""
    verdict: str = ""
    note: str = ""
    reason: str = ""
    by: str = ""
    system: str = ""  # that has it from its own operators
    key: str = ""  # the order that it was

    @property
    def who(self) -> str:
        """Who does it."""
        return self.by[:200]

    @property
    def why(self) -> str:
        """What they say of it."""
        return (self.note or self.reason)[:NOTE_CHARACTERS_MAX]


LISTS = frozenset(one.name for one in msgspec.structs.fields(Ask) if one.default == ())


def check(kind: str, payload: dict[str, Any], now_ns: int) -> tuple[Ask, list[Window]]:
    """Return what an action asks for and the windows that it begins, or raise ConfigError with one sentence: it
    cannot be meant."""
    ask = understood(kind, payload)
    if kind == TRIAGE:
        return ask, []
    known = Ask.__struct_fields__
    for name in (name for one in (payload, *payload.get("windows", ())) for name in one):
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, 1, 0.6)
        raise ConfigError(
            f"{kind}: unknown key {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        )
    if kind not in HIDES:
        return ask, []
    begun = [one for one in ask.windows or (ask,) if not (one.cancelled or one.over)]
    windows = [window_of(kind, one, now_ns) for asked in begun for one in apart(kind, asked)]
    for window in windows:
        window.check()
    return ask, windows


def understood(kind: str, payload: dict[str, Any]) -> Ask:
    """Return what an action asks for, or raise ConfigError."""
    if kind not in KINDS:
        raise ConfigError(f"action {kind!r} is not known; known: {', '.join(KINDS)}")
    if kind == TRIAGE:
        check_triage(payload)
        return Ask()
    given = _with_lists(payload)
    try:
        ask = msgspec.convert(given, Ask)
    except msgspec.ValidationError as error:
        raise ConfigError(_in_words(kind, given, error)) from error
    for one in ask.windows or (ask,):
        _check_needs(kind, one)
    return ask


def _with_lists(payload: Any) -> Any:
    """Return a payload whose single names are lists of one."""
    if not isinstance(payload, dict):
        return payload
    made = {
        name: [value] if name in LISTS and isinstance(value, str) else value
        for name, value in payload.items()
    }
    if isinstance(windows := made.get("windows"), list):
        made["windows"] = [_with_lists(one) for one in windows]
    return made


def _in_words(kind: str, given: dict[str, Any], error: msgspec.ValidationError) -> str:
    keys, said = understand(str(error), given, Ask)
    value: Any = given
    for key in keys:
        value = value[int(key)] if isinstance(value, list) else value[key]
    if "regex" in said:
        return f"{keys[0]} {str(value)[:40]!r} is no id; ids are 16 hex digits"
    return f"{kind}: {'.'.join(keys)} is {value!r:.40}: {said}"


def _check_needs(kind: str, ask: Ask) -> None:
    if (needs := NEEDS.get(kind)) and not any(getattr(ask, name) for name in needs):
        raise ConfigError(f"{kind} needs {' or '.join(needs)}")
    if kind == "feedback" and not ask.incident and ask.verdict not in VERDICTS:
        raise ConfigError(f"feedback on an alarm needs a verdict: {', '.join(VERDICTS)}")
    if ask.cancelled and not ask.name:
        raise ConfigError(f"{kind}: what is cancelled needs its name")
    if kind not in HIDES or ask.cancelled:
        return
    if kind in ("shelve", "silence") and not (ask.seconds or ask.end_ns):
        raise ConfigError(f"{kind} needs seconds or end_ns: what hides alarms must end")
    if not any(getattr(ask, name) for name in ABOUT):
        raise ConfigError(
            f"{kind} needs what it is about: an alarm, an incident, sites, kinds, ..."
        )


def apart(kind: str, ask: Ask) -> list[Ask]:
    """Return what an action asks for, a window each: of what is out of service, each is back by itself."""
    if kind != "out_of_service":
        return [ask]
    return [
        msgspec.structs.replace(
            ask, name=f"out-of-service-{one}",
            nodes=tuple({one} & {*ask.nodes}), entities=tuple({one} & {*ask.entities}),
        )
        for one in dict.fromkeys((*ask.nodes, *ask.entities))
    ]  # fmt: skip


def window_of(kind: str, ask: Ask, now_ns: int) -> Window:
    """Return the window that an action asks for; which nodes its sites and objects are, the map says."""
    start_ns = now_ns if ask.start_ns is None else ask.start_ns
    end_ns = ask.end_ns
    if not end_ns:
        end_ns = NEVER_NS if ask.seconds is None else start_ns + round(ask.seconds * 1e9)
    if end_ns <= start_ns:
        raise ConfigError(f"{kind}: it ends before it begins")
    text = json.dumps(msgspec.to_builtins(ask), sort_keys=True)
    return Window(
        ask.name or f"{HIDES[kind]}-{id_text(stable_id(text + str(now_ns)))}", HIDES[kind],
        start_ns, end_ns, days=ask.days, zone=ask.zone, nodes=ask.nodes, links=ask.links,
        entities=ask.entities, kinds=ask.kinds, sources=ask.sources, reason=ask.why, by=ask.who,
    )  # fmt: skip
