"""3GPP performance measurement files: XML of TS 32.435 and TS 28.532, read as a stream.

Both forms of lists: measTypes with measResults, and measType with r. What is written before the first
tag is passed over. Document type declarations are refused: with them go entities, and their expansion.
Elements are known by their local name, whatever the namespace and version.

Source: 3GPP TS 32.435 section 4 and annex A; TS 28.532 annex A.3 (measDataFile); TS 32.432.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from xml.parsers import expat

from telemetry.errors import DecodeError

JUNK_BYTES_MAX = 64 * 1024  # before the first tag
TEXT_MAX = 1 << 20  # characters of one element
DEPTH_MAX = 64
NAME_MAX = 512  # characters of a counter or an object
COUNTERS_MAX = 20_000  # of one measInfo
MISSING = frozenset({"", "nil", "null", "none", "nan", "n/a", "na", "-"})
_DURATION = re.compile(
    r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?", re.ASCII
)  # fmt: skip


@dataclass(slots=True)
class Measurement:
    """Counters of one object over one granularity period."""

    sender: str
    dn: str  # distinguished name: prefix, network element, object
    begin_ns: int
    seconds: float
    suspect: bool
    values: dict[str, float]


@dataclass(slots=True)
class FileReport:
    """What a file held besides measurements: results by what became of them."""

    sender: str = ""
    vendor: str = ""
    measurements: int = 0
    results: int = 0  # numbers that became values
    missing: int = 0  # stated as not there, or not stated at all
    not_numbers: int = 0
    lists: int = 0  # several numbers in one result, such as a histogram: not taken
    misaligned: int = 0  # lists of names and of results that do not fit each other
    suspect: int = 0  # results that the element itself doubts
    no_period: int = 0  # results without a time that can be read
    ended: bool = field(default=False)

    @property
    def undecodable(self) -> int:
        """Results that were lost."""
        return self.not_numbers + self.misaligned + self.no_period


def duration_seconds(text: str) -> float:
    """Return the seconds of an ISO 8601 duration, 0 where it is none.

    >>> duration_seconds("PT900S"), duration_seconds("PT15M"), duration_seconds("P1DT1H"), duration_seconds("x")
    (900.0, 900.0, 90000.0, 0.0)
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        return 0.0
    days, hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return days * 86_400 + hours * 3600 + minutes * 60 + seconds


def time_ns(text: str, zone: tzinfo) -> int:
    """Return an ISO 8601 time as ns since 1970 UTC, 0 where it is none; without a zone it is of `zone`."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=zone)
    return max(0, round(moment.timestamp() * 1000)) * 1_000_000


def full_name(prefix: str, element: str, object_: str) -> str:
    """Join the parts of a distinguished name; a part that holds the one before it says it once.

    >>> full_name("SubNetwork=1", "ManagedElement=A", "Cell=7")
    'SubNetwork=1,ManagedElement=A,Cell=7'
    >>> full_name("PLMN=1", "PLMN=1,MRBTS=9", "PLMN=1,MRBTS=9,Cell=5")
    'PLMN=1,MRBTS=9,Cell=5'
    """
    made = ""
    for part in (prefix, element, object_):
        name = part.strip().strip(",")[:NAME_MAX]
        if not name:
            continue
        inside = made and (name == made or name.startswith(made + ","))
        made = name if inside or not made else f"{made},{name}"
    return made


class PmReader:
    """Turns the chunks of one file into measurements. `report` is complete when the last chunk was fed.

    Raises DecodeError where the file is no XML, no measurement file, or cut.
    """

    def __init__(self, zone: tzinfo = UTC, *, default_seconds: float = 900.0) -> None:
        self.report = FileReport()
        self._zone = zone
        self._default_seconds = default_seconds
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.buffer_text = True
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._characters
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._head = b""
        self._begun = False
        self._ready: list[Measurement] = []
        self._path: list[str] = []
        self._text: list[str] = []
        self._text_size = 0
        self._prefix = self._element = ""
        self._begin_ns = self._end_ns = 0
        self._seconds = 0.0
        self._names: dict[str, str] = {}  # p: counter
        self._listed: list[str] = []
        self._object = ""
        self._values: dict[str, float] = {}
        self._stated = 0
        self._p = ""
        self._suspect = False

    def feed(self, chunk: bytes) -> list[Measurement]:
        """Take the next bytes; return the measurements that are whole now."""
        if not self._begun:
            self._head += chunk
            start = _first_tag(self._head)
            if start < 0:
                if len(self._head) > JUNK_BYTES_MAX:
                    raise DecodeError("no_xml", f"no XML within the first {JUNK_BYTES_MAX} bytes")
                return []
            chunk, self._head, self._begun = self._head[start:], b"", True
        return self._parse(chunk, last=False)

    def close(self) -> list[Measurement]:
        """Say that there is no more; return the last measurements."""
        if not self._begun:
            raise DecodeError("no_xml", "no XML in it" if self._head else "empty")
        made = self._parse(b"", last=True)
        if not self.report.ended:
            raise DecodeError("no_pm", "no measCollecFile or measDataFile in it")
        return made

    def _parse(self, chunk: bytes, *, last: bool) -> list[Measurement]:
        try:
            self._parser.Parse(chunk, last)
        except expat.ExpatError as error:
            if self.report.ended and "junk after document element" in str(error):
                pass  # what stands behind the end is nobody's
            else:
                raise DecodeError("not_well_formed", f"XML is broken: {error}") from error
        ready, self._ready = self._ready, []
        return ready

    # ---- what expat calls

    def _doctype(self, *_: object) -> None:
        raise DecodeError("doctype", "a document type declaration; such files are refused")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(" ")[2]
        if not self._path and tag not in ("measCollecFile", "measDataFile"):
            raise DecodeError("no_pm", f"root element {tag[:80]!r} is none of a measurement file")
        if len(self._path) >= DEPTH_MAX:
            raise DecodeError("too_deep", f"elements nested deeper than {DEPTH_MAX}")
        self._path.append(tag)
        self._text, self._text_size = [], 0
        if tag == "fileHeader":
            self._prefix = attributes.get("dnPrefix", "")
            self.report.vendor = attributes.get("vendorName", "")[:NAME_MAX]
        elif tag == "fileSender":
            sender = attributes.get("localDn") or attributes.get("senderName") or ""
            self.report.sender = full_name(self._prefix, sender, "")
        elif tag in ("measCollec", "measData"):
            self._element = ""
            if "beginTime" in attributes:
                self._begin_ns = time_ns(attributes["beginTime"], self._zone)
        elif tag in ("managedElement", "measEntity", "measuredEntity"):
            self._element = attributes.get("localDn") or attributes.get("userLabel") or ""
        elif tag == "measInfo":
            self._names, self._listed = {}, []
            self._end_ns, self._seconds = 0, 0.0
        elif tag == "granPeriod":
            self._end_ns = time_ns(attributes.get("endTime", ""), self._zone)
            self._seconds = duration_seconds(attributes.get("duration", ""))
        elif tag == "measValue":
            self._object = attributes.get("measObjLdn", "")
            self._values, self._stated, self._suspect = {}, 0, False
        elif tag in ("measType", "r"):
            self._p = attributes.get("p", "")

    def _characters(self, data: str) -> None:
        self._text_size += len(data)
        if self._text_size > TEXT_MAX:
            raise DecodeError("too_long", f"an element of more than {TEXT_MAX} characters")
        self._text.append(data)

    def _end(self, name: str) -> None:
        tag = name.rpartition(" ")[2]
        self._path.pop()
        text = "".join(self._text).strip()
        self._text, self._text_size = [], 0
        if tag == "measType":
            self._name(self._p or str(len(self._names) + 1), text)
        elif tag == "measTypes":
            self._listed = [counter[:NAME_MAX] for counter in text.split()[:COUNTERS_MAX]]
        elif tag == "measResults":
            self._results(text.split())
        elif tag == "r":
            self._result(self._names.get(self._p or str(self._stated + 1), ""), text)
        elif tag == "suspect":
            self._suspect = text.lower() in ("true", "1")
        elif tag == "measValue":
            self._measured()
        elif tag in ("measCollecFile", "measDataFile") and not self._path:
            self.report.ended = True

    # ---- results

    def _name(self, place: str, counter: str) -> None:
        if len(self._names) < COUNTERS_MAX:
            self._names[place] = counter[:NAME_MAX]

    def _results(self, results: list[str]) -> None:
        counters = self._listed or list(self._names.values())
        if len(counters) != len(results):
            # Which number belongs to which name cannot be told: a blank in a name, or one is missing.
            self.report.misaligned += len(results)
            self._stated += len(counters)
            return
        for counter, result in zip(counters, results, strict=True):
            self._result(counter, result)

    def _result(self, counter: str, text: str) -> None:
        self._stated += 1
        if not counter:
            self.report.misaligned += 1
        elif text.lower() in MISSING:
            self.report.missing += 1
        elif "," in text and all(
            _number(part) is not None for part in text.split(",") if part.strip()
        ):
            self.report.lists += 1
        else:
            value = _number(text)
            if value is None:
                self.report.not_numbers += 1
            elif counter not in self._values:
                self._values[counter] = value

    def _measured(self) -> None:
        report = self.report
        report.missing += max(0, len(self._names or self._listed) - self._stated)
        seconds = self._seconds or self._default_seconds
        end_ns = self._end_ns or (self._begin_ns and self._begin_ns + round(seconds * 1e9))
        begin_ns = end_ns - round(seconds * 1e9)
        if begin_ns <= 0:
            report.no_period += len(self._values)
            return
        report.measurements += 1
        if self._suspect:
            report.suspect += len(self._values)
        report.results += len(self._values)
        dn = full_name(self._prefix, self._element, self._object) or report.sender
        self._ready.append(
            Measurement(report.sender or dn, dn, begin_ns, seconds, self._suspect, self._values)
        )


def read_measurements(chunks: Iterable[bytes], reader: PmReader) -> Iterator[Measurement]:
    """Yield the measurements of a whole file. Raises DecodeError."""
    for chunk in chunks:
        yield from reader.feed(chunk)
    yield from reader.close()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


def _first_tag(data: bytes) -> int:
    """Return where XML begins behind whatever stands before it, -1 where that is not to be told yet."""
    for mark in (
        b"<?xml",
        b"\xff\xfe<\0?\0",
        b"\xfe\xff\0<\0?",
        b"<measCollecFile",
        b"<measDataFile",
    ):
        at = data.find(mark)
        if at >= 0:
            return at
    at = data.find(b"<")
    return at if 0 <= at < len(data) - 64 else -1
