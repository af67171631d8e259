"""Text and times of other systems: mixed encodings, control characters, clocks of their own."""

import codecs
import json
import re
from datetime import UTC, datetime, tzinfo
from email.utils import parsedate_to_datetime
from typing import Any
from xml.etree.ElementTree import Element, ParseError, fromstring

from telemetry.text import sound
from telemetry.zones import ZONES

TEXT_MAX = 4_096
LATEST_NS = 2**62  # the year 2116: what is later is no time that something happened at
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_DECLARED = re.compile(rb"""\s*<\?xml[^>]*encoding=["']([A-Za-z0-9._-]+)["']""")
_PROLOG = re.compile(r"^\ufeff?\s*<\?xml[^>]*\?>")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _as_latin(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return error.object[error.start : error.end].decode("iso-8859-1"), error.end


codecs.register_error("tocsin-latin-1", _as_latin)


def decode_text(data: bytes, encoding: str = "utf-8") -> str:
    """Return bytes as text. In UTF-8, what is none is read as ISO-8859-1: systems mix the two.

    >>> decode_text("K\u00f6ln ".encode() + "M\u00fcnchen".encode("iso-8859-1"))
    'Köln München'
    """
    try:
        return data.decode(encoding, "tocsin-latin-1")
    except LookupError:
        return data.decode("utf-8", "tocsin-latin-1")


def json_of(data: bytes, encoding: str = "utf-8") -> Any:
    """Return the value of a JSON document, control characters in its texts allowed, or raise ValueError.

    >>> json_of(b'{"a": "\\\\ud800x \\\\ud83d\\\\ude00"}')
    {'a': '?x 😀'}
    """
    text = decode_text(data, encoding)
    try:
        value = json.loads(text, strict=False)
        if _SURROGATE.search(text):  # half a pair is no text
            value = json.loads(sound(json.dumps(value, ensure_ascii=False)))
        return value
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def xml_of(data: bytes) -> Element:
    """Return the root of an XML document without a DTD, or raise ValueError.

    The encoding is the declared one; bytes that it does not have are read as ISO-8859-1.
    """
    declared = _DECLARED.match(data[:200])
    text = decode_text(data, declared[1].decode() if declared else "utf-8")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError("it has a document type, which we do not read")
    try:
        root = fromstring(_NOT_XML.sub(" ", _PROLOG.sub("", text, count=1)))  # noqa: S314  # no DTD
    except ParseError as error:
        raise ValueError(str(error)) from error
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def xml_tree(element: Element) -> Any:
    """Return an element as JSON would have it: attributes as @name, its text as $ or as itself."""
    made: dict[str, Any] = {f"@{name}": value for name, value in element.attrib.items()}
    for child in element:
        value = xml_tree(child)
        if child.tag in made:
            kept = made[child.tag]
            made[child.tag] = [*kept, value] if isinstance(kept, list) else [kept, value]
        else:
            made[child.tag] = value
    text = (element.text or "").strip()
    if not made:
        return text
    return made | {"$": text} if text else made


def clean(value: object, most: int = TEXT_MAX) -> str:
    """Return a foreign value as one line of text of at most `most` characters.

    >>> clean("down\\x00 ")
    'down'
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return _CONTROL.sub(" ", str(value)).strip()[:most]


def integer(value: object, default: int = 0) -> int:
    """Return a foreign number, also as text or hexadecimal, or `default` where it is none.

    >>> integer("0x11f56"), integer(" 007 "), integer(None), integer("n/a", -1)
    (73558, 7, 0, -1)
    """
    if isinstance(value, bool | int):
        return int(value)
    if isinstance(value, float):
        return int(value) if abs(value) < 2**63 else default
    text = str(value).strip()
    try:
        if len(text) >= 40:
            return default
        return int(text, 16) if text[:2].lower() == "0x" else int(text)
    except ValueError:
        return default


def seconds_ns(value: object) -> int:
    """Return epoch seconds as nanoseconds, 0 where they are none."""
    made = integer(value)
    return made * 1_000_000_000 if 0 < made < 2**33 else 0


_ZONE_BEHIND = re.compile(r":\d\d\s*[A-Za-z(]")
_ZONE = re.compile(r"(:\d\d(?:\.\d+)?(?: [AP]M)?) +([A-Z]{1,4})(?![\w:])")  # behind the time of day
_BLANK_BEFORE_OFFSET = re.compile(r" (?=[+-]\d{4}$)")


def with_offset(text: str) -> str:
    """Return a time with the name of its zone, where it is one that we know, as what it is ahead of UTC.

    >>> with_offset("20.03.2026 10:46 CEST"), with_offset("10:46:40 PM"), with_offset("10:46:40 IST 2026")
    ('20.03.2026 10:46 +0200', '10:46:40 PM', '10:46:40 +0530 2026')
    """
    found = _ZONE.search(text)
    if found is None or found[2] not in ZONES:
        return text
    ahead = ZONES[found[2]]
    hours, minutes = divmod(abs(ahead), 60)
    offset = f"{'-' if ahead < 0 else '+'}{hours:02}{minutes:02}"
    return f"{text[: found.end(1)]} {offset}{text[found.end() :]}"


def iso_ns(text: str, zone: tzinfo = UTC) -> int:
    """Return an ISO 8601 or RFC 2822 time as nanoseconds; `zone` counts where it names none.

    Raises ValueError for what is neither, or has AM, PM or a zone that neither RFC 2822 nor we know.

    >>> iso_ns("2026-03-20T10:26:40Z"), iso_ns("Fri, 20 Mar 2026 10:26:40 +0000")
    (1774002400000000000, 1774002400000000000)
    >>> iso_ns("2026-03-20 11:26:40 CET"), iso_ns("Fri, 20 Mar 2026 12:26:40 CEST")
    (1774002400000000000, 1774002400000000000)
    """
    stated = with_offset(text.strip())
    try:
        made = datetime.fromisoformat(_BLANK_BEFORE_OFFSET.sub("", stated))
    except ValueError:
        try:
            made = parsedate_to_datetime(stated)
        except (TypeError, IndexError, OverflowError) as error:
            raise ValueError(f"{text!r} is no time") from error
        if made.tzinfo is None and _ZONE_BEHIND.search(text):
            raise ValueError(f"{text!r} has a zone that nobody knows") from None
    at_ns = datetime_ns(made if made.tzinfo else made.replace(tzinfo=zone))
    if abs(at_ns) >= LATEST_NS:
        raise ValueError(f"{text!r} is no time of ours")
    return at_ns


def datetime_ns(made: datetime) -> int:
    """Return a time with a zone as nanoseconds since 1970, exactly."""
    since = made - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000
