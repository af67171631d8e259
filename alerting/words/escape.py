"""Text that others wrote, made harmless: once for all sinks, then by what it is put into.

Alarm texts come from the network and may hold anything. `tidy` bounds them and takes out what no
receiver should see (control characters, halves of surrogate pairs, marks that turn the writing
direction); the `ESCAPES` write a tidy text into HTML, Slack's mrkdwn and the like, so that it is text
there and nothing else.
"""

import json
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from alerting.words.alert import Alert

TEXT_CHARACTERS_MAX = 4_000
TITLE_CHARACTERS_MAX = 500
NAME_CHARACTERS_MAX = 255
LIST_MAX = 100
DEPTH_MAX = 6
# C0 (but line feed and tab), DEL, C1, lone surrogates, bidirectional controls, BOM, non-characters.
_HARMFUL = re.compile(
    "[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u061c\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069"
    "\\ud800-\\udfff\\ufeff\\ufffe\\uffff]"
)
# In JSON: an escape other than of a quote, a backslash or a line feed, space at an end, or what is harmful by itself.
_SUSPECT = re.compile(r'\\[^"\\n]|  +|" | "|' + _HARMFUL.pattern)
_TOKEN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/+-]*")


def clean(text: str, limit: int = TEXT_CHARACTERS_MAX) -> str:
    """Return a text without what is harmful anywhere, at most `limit` characters.

    >>> clean("a\\x1b[31mb\\x00"), clean("x" * 9, 4)
    ('a\\ufffd[31mb\\ufffd', 'xxx…')
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _HARMFUL.sub("\ufffd", text)


def line(text: str, limit: int = TITLE_CHARACTERS_MAX) -> str:
    """Return a text on one line."""
    if len(text) <= limit and text.isascii() and text.isprintable() and "  " not in text:
        return text.strip()  # most are so
    return " ".join(clean(text, limit).split())


def tidied(body: str) -> Alert | str:
    """Return the alert of a canonical body, tidy: the body where that shows that it is. Most are so."""
    short = len(body) <= TEXT_CHARACTERS_MAX
    # What is below a space is always escaped in canonical JSON.
    if short and body.isascii() and "\\" not in body and "\x7f" not in body:
        # Looked for from the end, which is three times as quick.
        if body.rfind("  ") == body.rfind('" ') == body.rfind(' "') == -1:
            return body
    alert = msgspec.json.decode(body, type=Alert)
    lines = any("\n" in text for text in (alert.title, alert.kind, alert.entity))
    return alert if short and not lines and not _SUSPECT.search(body) else tidy(alert)


def tidy(alert: Alert) -> Alert:
    """Return the alert as sinks are given it: every text clean and bounded."""
    named = {
        name: line(value, TITLE_CHARACTERS_MAX if name == "title" else NAME_CHARACTERS_MAX)
        if isinstance(value, str)
        else _tidy(value, 0)
        for name, value in msgspec.structs.asdict(alert).items()
    }
    return msgspec.convert(named, Alert)


def _tidy(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        return float(value)  # no receiver's parser knows it either
    if isinstance(value, Mapping):
        if depth == DEPTH_MAX:
            return {}
        return {
            line(str(key), NAME_CHARACTERS_MAX): _tidy(one, depth + 1)
            for key, one in list(value.items())[:LIST_MAX]
        }
    if isinstance(value, list | tuple):
        return [] if depth == DEPTH_MAX else [_tidy(one, depth + 1) for one in value[:LIST_MAX]]
    return value


def _mrkdwn(text: str) -> str:
    """Slack: the three characters of its markup, and the marks of style made ordinary by a joiner.

    Source: Slack, Formatting text for app surfaces, "Escaping text".
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([*_~`])", "\u200b\\1", text)


def _html(text: str) -> str:
    from html import escape  # brings a table of 2,000 names: for who has such a sink

    return escape(text, quote=True)


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_{}\[\]()#+\-.!|<>~&])", r"\\\1", text)


def token(text: str) -> str:
    """Return a text that is one plain word (an address, a name), or raise ValueError.

    For command lines: nothing is escaped, what is not plain is not run.
    """
    if len(text) > NAME_CHARACTERS_MAX or not _TOKEN.fullmatch(text):
        raise ValueError(f"{clean(text, 80)!r} is not a plain word")
    return text


ESCAPES: Mapping[str, Callable[[str], str]] = MappingProxyType(
    {
        "plain": lambda text: text,
        "json": lambda text: json.dumps(text)[1:-1],  # between quotes that the template has
        "html": _html,
        "mrkdwn": _mrkdwn,
        "markdown": _markdown,
        "token": token,
    }
)
