"""The records of captures as rows, and what could not be decoded, by reason: what `tocsin decode` shows."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from collectors.capture.reader import is_capture, read_capture
from collectors.capture.report import CaptureReport
from collectors.capture.tcp import TcpStreams
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.decoder import FlowDecoder
from collectors.flow.detect import FLOW_PORTS, export_ns, protocol_of
from collectors.flow.explain import (
    explain_v5,
    has_more,
    records_of,
    sflow_samples,
    unmapped,
    way_back,
)
from collectors.flow.reference import COLUMNS
from collectors.flow.sflow5 import SflowDecoder
from collectors.present import rows
from collectors.reading import Readings
from collectors.registry import make_decoder
from collectors.strangers import stranger
from telemetry import wire
from telemetry.errors import DecodeError
from telemetry.identity import address_text

FLOWS = ("flow", "netflow5", "netflow9", "ipfix", "sflow", "sflow5")
Kind = tuple[str, bool]  # decoder, whether over a stream
# Schemas whose rows are only shown with `--all`, and the noun of one.
_HIDDEN = {"series": "series name", "option": "options record", "ledger": "ledger row"}
FLOW_DECODERS = ("", "netflow5", "templated", "sflow5")
CHUNK_BYTES = 65_536
_TEMPLATED = {
    "truncated_header": "datagrams shorter than their header",
    "unknown_version": "datagrams of a version that is none of 5, 9, 10",
    "length_beyond_datagram": "datagrams whose lengths go beyond their end (what is whole was read)",
    "bad_set_length": "datagrams with a set shorter than its header (what came before was read)",
}
_REASONS = {
    "collector_templated_datagrams_total": _TEMPLATED,
    "collector_netflow5_datagrams_total": {
        "truncated": "NetFlow 5 datagrams with a record cut off",
        "wrong_count": "NetFlow 5 datagrams with a wrong count (their whole records were read)",
    },
    "collector_templates_total": {
        "malformed": "malformed templates",
        "refused": "templates beyond the limit for an exporter",
    },
    "collector_sets_total": {
        "held_dropped": "data sets without template, over the limit",
        "held_expired": "data sets whose template did not come in time",
    },
    "collector_sflow5_datagrams_total": {
        "truncated": "sFlow datagrams shorter than their header",
        "not_version_5": "sFlow datagrams of another version",
        "bad_length": "sFlow datagrams whose lengths go beyond their end (what is whole was read)",
    },
    "collector_sflow5_skipped_total": {},
}
_SKIPPED = {
    "sample": "sFlow samples of a format we do not read, skipped by their length",
    "record": "sFlow structures of a format we do not read, skipped by their length",
    "reserved_id": "sets with a reserved id",
}


class Decoding:
    """One run over several files with one decoder for each protocol and transport."""

    def __init__(
        self,
        context: Any,
        *,
        protocol: str = "auto",
        everything: bool = False,
        tunnels: str = "outer",
    ) -> None:
        settings = FlowDecoderSettings(
            clock="exported",
            tunnels="inner" if tunnels == "inner" else "outer",
            template_expiry_seconds=1e12,
            held_bytes_max=256 << 20,
            held_bytes_per_exporter_max=256 << 20,
            held_seconds=1e9,
        )
        self._flow = FlowDecoder(settings, context)
        self._sets_seen = self._flow.for_people()
        self._sflow = SflowDecoder(settings, context)
        self._context = context
        self._readings = Readings()
        self._others: dict[tuple[str, bool], Any] = {}  # decoders by kind and whether over streams
        self._metrics = context.metrics
        self._protocol = protocol
        self._everything = everything
        self._series: dict[int, tuple[str, str]] = {}
        self._templates: dict[tuple[Any, int], Any] = {}
        self.explain = False
        self._newest_ns = 0
        self.read: Counter[str] = Counter()  # by noun
        self.records = 0
        self._hidden: Counter[str] = Counter()  # rows that `--all` shows, by noun
        self.undecoded: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()

    def rows(self, files: tuple[Path, ...]) -> Iterator[dict[str, Any]]:
        """Yield the rows of all files; afterwards `undecoded` and `left_out` are complete."""
        for path in files:
            yield from self._file(path)
        for text, set_id, sets in self._flow.waiting_sets():
            self.undecoded[f"data sets without their template ({set_id} of {text})"] += sets
        yield from self._end_others()
        self._count_verdicts()
        if self._everything:
            for decoder in (self._flow, self._sflow):
                for batch in decoder.advance(0):
                    yield from self._present(batch)

    def _file(self, path: Path) -> Iterator[dict[str, Any]]:
        if path.suffix == ".arrows":
            yield from self._arrows(path)
            return
        if (parse := self._parser(path)) is not None:
            yield from self._document(path, parse)
            return
        report = CaptureReport()
        waiting: list[Datagram] = []
        kind: Kind = ("", False)
        most = 1 if self.explain else 1024
        try:
            for datagram in self._of_file(read_capture(path, report, TcpStreams()), path):
                found = self._kind(datagram)
                if not found[0]:
                    continue
                if waiting and (found != kind or len(waiting) >= most):
                    yield from self._decode(kind, waiting, pack(waiting))
                    waiting = []
                kind = found
                waiting.append(_timed(datagram))
        except DecodeError as error:
            self.undecoded[f"{path}: {error}"] += 1
        if waiting:
            yield from self._decode(kind, waiting, pack(waiting))
        if report.damage:
            self.undecoded[f"{path}: {report.damage}; what came before it was read"] += 1
        self.left_out.update(report.left_out)
        self.undecoded.update({f"{path}: {what}": n for what, n in report.undecoded.items()})

    def _kind(self, datagram: Any) -> Kind:
        """Return which decoder a datagram goes to, "" where none; count those that are none."""

        if datagram.payload or not datagram.stream:
            self.read["chunk of a stream" if datagram.stream else "datagram"] += 1
        if self._protocol in FLOWS and not datagram.stream:
            if self._protocol in ("sflow", "sflow5"):
                return "sflow5", False
            return "netflow5" if datagram.payload[:2] == b"\x00\x05" else "templated", False
        if self._protocol not in (*FLOWS, "auto"):
            if self._readings.is_answer(datagram, self._protocol):
                return "", True
            return self._protocol, datagram.stream
        kind = self._readings.by_port(datagram) if self._protocol == "auto" else ""
        if kind or datagram.stream:
            if not kind:
                self.left_out["chunks of TCP that no collector reads"] += 1
            return kind, datagram.stream
        found = protocol_of(datagram.payload)
        if found is None:
            if words := stranger(datagram.payload):
                lost = self.left_out if datagram.destination_port else self.undecoded
                lost[words] += 1
            elif datagram.destination_port in FLOW_PORTS or not datagram.destination_port:
                self.undecoded["datagrams of no flow protocol (NetFlow 5, 9, IPFIX, sFlow 5)"] += 1
            else:
                self.left_out["UDP that is no flow export"] += 1
            return "", False
        return found if found in ("netflow5", "sflow5") else "templated", False

    # ---- protocols that are no flows: as their parts say (runtime.registry.Reads)

    def _file_kind(self, path: Path) -> str:
        """Return the kind whose file this is; "" for captures and flow payloads."""

        with path.open("rb") as file:
            head = file.read(512)
        if is_capture(head):
            return ""
        if self._protocol == "auto":
            return self._readings.by_head(head)
        return self._protocol if self._protocol in self._readings.parts else ""

    def _parser(self, path: Path) -> Any:
        kind = self._file_kind(path) if self._protocol not in FLOWS else ""
        return self._readings.reads(kind).parse if kind else None

    def _document(self, path: Path, parse: Any) -> Iterator[dict[str, Any]]:
        try:
            batches = list(parse(path.read_bytes(), path.name))
        except DecodeError as error:
            self.undecoded[f"{path}: {error}"] += 1
            return
        self.read["document"] += 1
        for batch in batches:
            yield from self._present(batch)

    def _of_file(self, datagrams: Iterator[Any], path: Path) -> Iterator[Any]:
        """Yield the datagrams; of a file that is no capture as its protocol has them."""
        kind = self._file_kind(path) if self._protocol not in FLOWS else ""
        if not kind:
            yield from datagrams
            return
        when_ns = path.stat().st_mtime_ns  # the newest that a line in it can be
        stream = self._readings.reads(kind).file == "stream"
        ports = (
            self._readings.reads(kind).tcp_ports if stream else self._readings.reads(kind).udp_ports
        )
        for one in datagrams:
            made = replace(
                one, arrival_ns=when_ns, stream=stream, destination_port=ports[0] if ports else 0
            )
            for start in range(0, len(made.payload), CHUNK_BYTES) if stream else (0,):
                part = made.payload[start : start + CHUNK_BYTES] if stream else made.payload
                yield replace(made, payload=part)
            if stream:
                yield replace(made, payload=b"")

    def _other(self, kind: str, stream: bool, block: Any) -> Iterator[dict[str, Any]]:
        decoder = self._others.get((kind, stream))
        if decoder is None:
            settings = self._readings.settings(kind, stream=stream, clock="exported")
            decoder = self._others[kind, stream] = make_decoder(settings, self._context)
        for batch in decoder.decode(block):
            yield from self._present(batch)
        self._newest_ns = max(self._newest_ns, int(block.arrival_ns[-1]))

    def _end_others(self) -> Iterator[dict[str, Any]]:
        """Yield what decoders counted, and take from their ledgers what they could not read."""
        for (kind, _), decoder in self._others.items():
            told = bool(self._readings.reads(kind).reasons)
            for batch in decoder.advance(self._newest_ns + 1):
                if batch.schema.name == "ledger" and not told:
                    for protocol, count in zip(
                        batch.texts("protocol"), batch["undecodable"].tolist(), strict=True
                    ):
                        if count > 0:
                            self.undecoded[f"{protocol} messages that could not be read"] += count
                yield from self._present(batch)

    # ---- flows

    def _decode(
        self, which: Kind, datagrams: list[Datagram], block: Any
    ) -> Iterator[dict[str, Any]]:
        kind, stream = which
        if kind not in FLOW_DECODERS:
            yield from self._other(kind, stream, block)
            return
        decoder = self._sflow if kind == "sflow5" else self._flow
        seen = self._sets_seen
        assert seen is not None
        seen.clear()
        batches = decoder.decode(block)
        if self._everything:
            yield from self._new_templates()
        origins: Iterator[dict[str, Any]] = iter(())
        if kind == "templated":
            origins = self._origins()
        elif self.explain:
            origins = _fixed_origins(kind, datagrams[0].payload)
        for batch in batches:
            for row in self._present(batch):
                if row["schema"] == "flow":
                    self.records += 1
                    row.update(next(origins, {}))
                yield row
        if self._everything:
            yield from self._options()

    def _present(self, batch: Any) -> Iterator[dict[str, Any]]:
        name = batch.schema.name
        if name == "series":
            keys = zip(
                batch["series_id"].tolist(), batch.texts("entity"), batch.texts("key"), strict=True
            )
            self._series.update({series: (entity, key) for series, entity, key in keys})
        if name in _HIDDEN and not self._everything:
            self._hidden[_HIDDEN[name]] += batch.rows
            return
        names = self._names(batch) if name == "flow" else {}
        for place, row in enumerate(rows(batch)):
            known = {column: texts[place] for column, texts in names.items() if texts[place]}
            if known:
                row["names"] = known
            if name == "sample":
                entity, key = self._series.get(row["series_id"], ("", ""))
                row["entity"] = entity
                row["metric"] = key.rpartition("metric=")[2].partition(",")[0]
            if name not in ("flow", "series", "option", "ledger"):
                self.records += 1
            for time in ("arrival_ns", "export_ns", "time_ns"):
                if row.get(time) == 0:
                    row[time] = None  # a payload file does not say when it came
            yield row

    def _names(self, batch: Any) -> dict[str, list[str]]:
        """Return the names that the exporter's options data gave to the numbers of its flows."""
        tables = (self._sflow if batch.source == "sflow5" else self._flow).reference
        return {column: tables.join(batch, column) for column in COLUMNS} if len(tables) else {}

    def _origins(self) -> Iterator[dict[str, Any]]:
        """Yield what each templated flow row has besides its columns, in the rows' order."""
        for one in self._sets_seen:
            if one.template.scopes:
                continue
            if not self.explain and not has_more(one.template):
                yield from ({} for _ in range(one.rows))
                continue
            for fields in records_of(one):
                extra: dict[str, Any] = {}
                back = way_back(fields)
                if any(back.values()):
                    extra["reverse"] = back
                raw = unmapped(fields)
                if raw:
                    extra["elements"] = raw
                if self.explain:
                    number = one.template.template_id
                    extra["explain"] = [field.plain(number) for field in fields]
                yield extra

    def _options(self) -> Iterator[dict[str, Any]]:
        for one in self._sets_seen:
            if not one.template.scopes:
                continue
            high, low, _, domain = one.template.stream
            for fields in records_of(one):
                row: dict[str, Any] = {
                    "schema": "options_record",
                    "arrival_ns": one.arrival_ns,
                    "exporter_address": address_text(high, low),
                    "observation_domain_id": domain,
                    "template_id": one.template.template_id,
                    "scope": {f.key: f.data.hex() for f in fields if f.scope},
                    "elements": {f.key: f.data.hex() for f in fields if not f.scope},
                }
                if self.explain:
                    row["explain"] = [f.plain(one.template.template_id) for f in fields]
                yield row

    def _new_templates(self) -> Iterator[dict[str, Any]]:
        for template in self._flow.templates.all():
            key = (template.stream, template.template_id)
            if self._templates.get(key) == template.fields:
                continue
            self._templates[key] = template.fields
            high, low, port_version, domain = template.stream
            yield {
                "schema": "template",
                "arrival_ns": template.learned_ns,
                "exporter_address": address_text(high, low),
                "exporter_port": port_version & 0xFFFF,
                "version": port_version >> 16,
                "observation_domain_id": domain,
                "template_id": template.template_id,
                "scopes": template.scopes,
                "fields": [
                    {"element": f"{f.enterprise}:{f.element}", "length": f.width}
                    for f in template.fields
                ],
            }

    def _arrows(self, path: Path) -> Iterator[dict[str, Any]]:
        try:
            batch = wire.decode(path.read_bytes())
        except DecodeError as error:
            self.undecoded[f"{path}: {error}"] += 1
            return
        self.records += batch.rows
        yield from rows(batch)

    def _count_verdicts(self) -> None:
        others = (self._readings.reads(kind).reasons for kind, _ in self._others)
        for name, reasons in {
            **_REASONS,
            **{k: v for one in others for k, v in one.items()},
        }.items():
            for family in self._metrics.families():
                if family.name != name:
                    continue
                for label, amount in zip(family.values, family.numbers, strict=True):
                    if amount and label in reasons:
                        self.undecoded[reasons[label]] += int(amount)
                    elif amount and label in _SKIPPED:
                        self.left_out[_SKIPPED[label]] += int(amount)

    def told(self) -> Iterator[str]:
        """Yield what to say on stderr."""
        read = [_count(number, noun) for noun, number in self.read.items()]
        yield ", ".join([*(read or ["nothing"]), _count(self.records, "record")])
        self._hidden["template"] += len(self._flow.templates.all())
        hidden = [_count(number, noun) for noun, number in self._hidden.items() if number]
        if hidden and not self.records and not self._everything:
            yield f"not shown: {', '.join(hidden)}; --all shows them"
        for reason, amount in sorted(self.undecoded.items()):
            yield (
                f"not decoded: {amount} {reason}"
                if ": " not in reason
                else f"not decoded: {reason}"
            )
        for reason, amount in sorted(self.left_out.items()):
            yield f"left out: {amount} {reason}"


def _count(number: int, noun: str) -> str:
    what, of, whole = noun.partition(" of ")  # "chunk of a stream"
    return f"{number} {what}{'' if number == 1 else 's'}{of}{whole}"


def _timed(datagram: Any) -> Any:
    """Payload files do not say when they came: the header's own time stands in for it."""
    if datagram.arrival_ns:
        return datagram
    return replace(datagram, arrival_ns=export_ns(datagram.payload))


def _fixed_origins(kind: str, payload: bytes) -> Iterator[dict[str, Any]]:
    if kind == "netflow5":
        yield from ({"explain": explain_v5(payload, i)} for i in range((len(payload) - 24) // 48))
    else:
        for sample_format, structures in sflow_samples(payload):
            if sample_format in (1, 3, 5):
                yield {"explain": structures}
