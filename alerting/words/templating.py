"""Templates: a document with holes, and nothing that runs.

`${title}` puts a field of the alert in its place, escaped for the target; `${why|html}` escapes it
another way, `${title:150}` lets it have so many characters, `${do|"call the NOC"}` says what stands there
when it is empty; `$$` is a dollar sign.
There are no loops, calls or attributes, so a template can reach nothing but the fields of one alert
(ADR 0040). A target `json` is parsed first and its strings are filled in afterwards: what a value
holds can never change the document around it.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alerting.words.alert import Alert
from alerting.words.escape import ESCAPES
from alerting.words.wording import facts, place, story, verb, word
from telemetry.errors import ConfigError
from telemetry.x733 import SEVERITY_WORDS

SHIPPED = Path(__file__).with_name("templates")
TEMPLATE_BYTES_MAX = 256 * 1024
_HOLE = re.compile(
    r'\$(?:\$|\{([a-z_][a-z0-9_.]*)(?::([1-9][0-9]{0,5}))?(?:\|([a-z]+))?(?:\|"([^"{}]*)")?\})'
)
_LOOSE = re.compile(r"\$\{")
COLOURS = {
    "critical": "#c4162a", "major": "#ff780a", "minor": "#fade2a", "warning": "#8ab8ff",
    "indeterminate": "#b7b7b7", "cleared": "#37872d",
}  # fmt: skip


def fields(alert: Alert, *, key: str = "", sent_at: str = "") -> dict[str, str]:
    """Return everything that a template may name, as text."""
    node, resource = place(alert.entity)
    over = word("x733", alert) == SEVERITY_WORDS["x733"]["cleared"]
    made = dict.fromkeys(NAMES, "")
    made |= facts(alert)
    made |= {
        "id": alert.id, "change": alert.change, "key": key, "sent_at": sent_at,
        "title": alert.title, "node": node, "resource": resource, "story": story(alert),
        "verb": verb(alert),
        "colour": COLOURS["cleared" if over else alert.severity],
    }  # fmt: skip
    for system in SEVERITY_WORDS:
        made[f"severity.{system.replace('-', '_')}"] = str(word(system, alert))
    return made


NAMES = (
    "id", "change", "key", "sent_at", "title", "node", "resource", "story", "verb", "colour",
    "alarm_id", "kind", "entity", "severity", "state", "event_type", "probable_cause", "since",
    "changed", "cleared", "occurrence", "trend", "sure", "actual", "expected", "band", "why", "causes",
    "touches", "do", "before", "owner", "runbook", "picture", "short", "incident", "symptoms", "alarms", "operator",
    "source",
    *(f"severity.{system.replace('-', '_')}" for system in SEVERITY_WORDS),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template. `document` is a text, or for the target json what was parsed."""

    target: str
    document: Any
    content_type: str

    def render(self, values: Mapping[str, str]) -> bytes:
        """Return the document with every hole filled."""
        if self.target == "json":
            return json.dumps(_fill_all(self.document, values), ensure_ascii=False).encode()
        return fill(self.document, values, self.target).encode()


def fill(text: str, values: Mapping[str, str], target: str) -> str:
    """Return a text with its holes filled, each value escaped for the target or as it says.

    >>> fill("<b>${title}</b> costs $$5: ${do|\\"?\\"}", {"title": "<i>", "do": ""}, "html")
    '<b>&lt;i&gt;</b> costs $5: ?'
    """

    def put(hole: re.Match[str]) -> str:
        name, limit, escape, otherwise = hole.groups()
        if name is None:
            return "$"
        text = _fit(values[name], int(limit or 0), ESCAPES[escape or target]) or otherwise or ""
        # In HTML nothing gets by the last escape, whatever the template asks for before it.
        return ESCAPES["html"](text) if target == "html" and escape not in (None, "html") else text

    return _HOLE.sub(put, text)


def _fit(text: str, limit: int, escape: Callable[[str], str]) -> str:
    """Return a text escaped, its end left out where that has more characters than a limit, 0 = none.

    They are counted as receivers count them who count most: in UTF-16, where an emoji is two.
    """
    made, kept = escape(text), min(len(text), limit)
    while limit and _units(made) > limit and kept:
        kept -= 1 + max(_units(escape(text[:kept])) - limit, 0) // 8  # no escape is longer
        kept = max(kept, 0)
        made = escape(text[:kept].rstrip() + "…")
    return made


def _units(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def _fill_all(document: Any, values: Mapping[str, str]) -> Any:
    if isinstance(document, str):
        return fill(document, values, "plain")
    if isinstance(document, list):
        return [_fill_all(one, values) for one in document]
    if isinstance(document, dict):
        return {key: _fill_all(one, values) for key, one in document.items()}
    return document


def _strings(document: Any) -> Iterator[str]:
    if isinstance(document, str):
        yield document
    elif isinstance(document, list | dict):
        for one in document.values() if isinstance(document, dict) else document:
            yield from _strings(one)


def check(text: str, names: Collection[str] = NAMES) -> None:
    """Raise ConfigError for a hole that names no field or no escape, or that is left open."""
    for name, _, escape, _ in _HOLE.findall(text):
        if name and name not in names:
            raise ConfigError(f"${{{name}}} is no field; there are: {', '.join(names)}")
        if escape and escape not in ESCAPES:
            raise ConfigError(f"|{escape} is no way to escape; there are: {', '.join(ESCAPES)}")
    if loose := _LOOSE.search(_HOLE.sub("", text)):
        raise ConfigError(
            f'"${{" at character {loose.start()} begins no field: write ${{field}}, or $$ for a dollar'
        )


def shipped() -> list[str]:
    """Return the names of the templates that ship."""
    found = SHIPPED.iterdir()
    return sorted(entry.name.partition(".")[0] for entry in found if entry.name.count(".") == 1)


def load_template(name: str) -> Template:
    """Return a shipped template by name, or one's own by path; its ending says the target.

    `.json`, `.html`, `.txt` (plain) and `.md` (markdown). Raises ConfigError with what is wrong.
    """
    path = SHIPPED / f"{name}.json" if name in shipped() else Path(name)
    kinds = {
        ".json": ("json", "application/json"),
        ".html": ("html", "text/html; charset=utf-8"),
        ".txt": ("plain", "text/plain; charset=utf-8"),
        ".md": ("markdown", "text/markdown; charset=utf-8"),
    }
    ending = "." + path.name.rpartition(".")[2]
    if ending not in kinds:
        raise ConfigError(
            f"template {name!r}: give {', '.join(shipped())}, or a path that ends in "
            f"{', '.join(kinds)}"
        )
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"template {name!r}: {getattr(error, 'strerror', error)}") from error
    if len(data) > TEMPLATE_BYTES_MAX:
        raise ConfigError(f"template {name!r} is larger than {TEMPLATE_BYTES_MAX} bytes")
    target, content_type = kinds[ending]
    document: Any = text
    try:
        if target == "json":
            document = json.loads(text)
        for part in _strings(document):
            check(part)
    except ValueError as error:
        raise ConfigError(f"template {name!r} is no JSON: {error}") from error
    except ConfigError as error:
        raise ConfigError(f"template {name!r}: {error}") from error
    return Template(target, document, content_type)
