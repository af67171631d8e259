"""SNMP traps and informs, v1, v2c and v3: alarms by rules, log rows for what has no rule, all counted.

The hot path is one kernel a block (collectors.snmp.digest) and a dictionary look-up a notification.
Only the first of its kind in a second is decoded for people; the others raise its count. Nothing is
shed: what arrives is an alarm row, is counted in one, or has a reason.

Source: RFC 1157, RFC 3416, RFC 3584, RFC 3414; ITU-T X.733.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from collectors.block import DatagramBlock, Reply
from collectors.config import ListenerSettings
from collectors.snmp.digest import digest
from collectors.snmp.mapping import Meaning, fill_title, load_mapping
from collectors.snmp.runs import News, Runs, Standing
from collectors.snmp.secure import Opened, SecureReceiver
from collectors.snmp.trap_ledger import FATES, Fate, SenderLedger
from runtime.checkpoint import read_array, write_array
from runtime.component import Context, SnapshotReader, SnapshotWriter
from runtime.registry import Part, Reads
from runtime.settings import PositiveInt, Settings
from telemetry.batch import Batch, batch_from_rows
from telemetry.errors import ConfigError, DecodeError
from telemetry.foreign_alarm import alarm_row
from telemetry.identity import address_text, stable_id
from telemetry.sample_series import SampleKind, SeriesNames
from telemetry.schemas import ALARM, LEDGER, LOG, SAMPLE, SERIES
from telemetry.snmp import usm
from telemetry.snmp.ber import Tag, element
from telemetry.snmp.message import (
    VERSIONS,
    Notification,
    answer_inform,
    notification_of,
    read_envelope,
    read_pdu,
    write_varbind,
)  # fmt: skip
from telemetry.x733 import CLEARED

SECOND_NS = 1_000_000_000
INFORMS_MAX = 65_536  # informs remembered, so that one sent again counts once
REPLIES_MAX = 65_536
TRAPS_PER_DEVICE_MAX = 256  # counted by name; the rest as `other`
VARIABLES_MAX = 64
_UNMAPPED_FACILITY, _UNMAPPED_SEVERITY = 3, 5  # daemon, notice
_REFUSED = News("", "", {}, ("", ""))


class TrapUser(Settings, frozen=True, kw_only=True):
    """`[collectors.<name>.options.users.<user>]`: one SNMPv3 user."""

    auth: str = ""  # md5, sha, sha224, sha256, sha384, sha512; "" = noAuthNoPriv
    auth_password_file: str = ""
    priv: str = ""  # des, aes, aes192, aes256, aes192c, aes256c (Cisco's longer keys)
    priv_password_file: str = ""


class TrapOptions(Settings, frozen=True, kw_only=True):
    """`[collectors.<name>.options]` of kind "snmp-trap"."""

    communities: list[str] = []  # of v1 and v2c that are believed; none = any
    users: dict[str, TrapUser] = {}
    engine_id: str = ""  # ours, in hex, for SNMPv3 informs; "" = made from the collector's name
    names: dict[str, str] = {}  # what devices are called, by address
    mappings: list[str] = []  # files of rules beside those that ship
    mib_files: list[str] = []  # tables of names beside those that ship, made by `tocsin mibs`
    unmapped: Literal["log", "alarm"] = "log"  # what becomes of traps that have no rule
    # Whom a trap is about: the agent it names (v1 field, snmpTrapAddress), or who sent the datagram.
    device: Literal["stated", "sender"] = "stated"
    senders_max: PositiveInt = 65_536
    resources_max: PositiveInt = 65_536


def read_users(users: dict[str, TrapUser]) -> dict[str, usm.User]:
    """Return the users with their passwords; raises ConfigError."""

    def password(user: str, path: str) -> str:
        if not path:
            return ""
        try:
            return Path(path).read_text("utf-8").strip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"SNMPv3 user {user!r}: password file {path}: {error}. The node was not started."
            ) from error

    made = {
        name: usm.User(
            name,
            one.auth,
            password(name, one.auth_password_file),
            one.priv,
            password(name, one.priv_password_file),
        )
        for name, one in users.items()
    }
    usm.check_users(made)
    return made


def engine_id_of(text: str, name: str) -> bytes:
    """Return our engine id: as configured, else made from the collector's name.

    Source: RFC 3411, SnmpEngineID, the form "octets, administratively assigned".
    """
    if not text:
        return bytes.fromhex("80007ed905") + stable_id(f"snmp engine {name}").to_bytes(8, "big")
    try:
        made = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        made = b""
    if not 5 <= len(made) <= 32:
        raise ConfigError(
            f"engine_id = {text!r} is not 5 to 32 octets in hex. The node was not started."
        )
    return made


class _State(msgspec.Struct):
    """What a restart takes back."""

    second: int
    standing: list[Standing]
    counts: list[tuple[str, str, int]]
    labels: list[tuple[str, str, bool]]
    timers: list[tuple[str, int, dict[str, Any]]]
    engines: list[tuple[bytes, int, int, int]]
    informs: list[tuple[int, int, int, int]]


class TrapDecoder:
    """Turns datagrams into alarms, log rows, counts by trap, and a ledger by sender."""

    emits = (ALARM, LOG, SERIES, SAMPLE, LEDGER)

    def __init__(self, options: TrapOptions, context: Context) -> None:
        self._name = context.name.removeprefix("collectors.")
        self._options = options
        self._mapping = load_mapping(options.mappings, options.mib_files)
        self._selectors = self._mapping.selectors()
        self._communities = frozenset(text.encode() for text in options.communities)
        engine_id = engine_id_of(options.engine_id, self._name)
        self._secure = SecureReceiver(read_users(options.users), engine_id)
        self._runs = Runs()
        self._news: dict[int, News] = {}  # by digest, of the open second
        self._labels: OrderedDict[str, tuple[str, bool]] = OrderedDict()
        self._timers: OrderedDict[str, tuple[int, dict[str, Any]]] = OrderedDict()
        self._informs: OrderedDict[tuple[int, int, int, int], None] = OrderedDict()
        self._ledger = SenderLedger(options.senders_max)
        self._series = SeriesNames()
        self._counted: dict[str, set[str]] = {}
        self._scratch = np.zeros(4, np.uint64)
        self._alarms: list[dict[str, Any]] = []  # rows since the last call
        self._logs: list[dict[str, Any]] = []
        self._counts: list[dict[str, Any]] = []
        self.replies: list[Reply] = []
        self.changes = (
            0  # of what a crash must not lose: names in use, alarms that end by themselves
        )
        metrics = context.metrics
        self._messages = metrics.counter(
            "collector_snmp_messages_total",
            "SNMP messages received, by what became of them",
            label="verdict",
            values=FATES,
        )
        self._became = metrics.counter(
            "collector_snmp_notifications_total",
            "traps and informs, by what became of them: a row of its own, or counted in one",
            label="result",
            values=("alarm", "clear", "log", "counted"),
        )
        self._early = metrics.counter(
            "collector_snmp_dropped_total",
            "state that did not fit its bound, by kind",
            label="what",
            values=("timer_fired_early", "label_forgotten", "reply"),
        )

    # ---- datagrams

    def decode(self, block: DatagramBlock) -> list[Batch]:
        """Return a row for all that is new, and the counts of seconds that are over."""
        self._ledger.lost(block.kernel_drops)
        if not block.datagrams:
            return []
        begin = block.offset
        senders = _sender_hash(block)
        digests, versions, pdus, fates = self._digest(
            block.payload, begin, begin + block.length, senders, bare=False
        )
        inner: dict[int, tuple[bytes, Opened]] = {}
        secured = np.flatnonzero((versions == 3) & (fates == 0))
        if secured.size:
            self._open(block, secured, senders, (digests, pdus, fates), inner)
        seconds = block.arrival_ns // SECOND_NS
        edges = np.flatnonzero(np.diff(seconds)) + 1
        starts = [0, *edges.tolist()]
        for first, last in zip(starts, [*starts[1:], block.datagrams], strict=True):
            second = int(seconds[first])
            if second != self._runs.second:
                self._close()
                self._runs.second = second
            self._count(block, first, last, (digests, pdus, fates), inner)
        self._ledger.count(block, senders, fates)
        self._messages.array[:] += np.bincount(fates, minlength=len(FATES)).astype(np.uint64)
        return self._taken(int(block.arrival_ns[-1]))

    def _digest(
        self,
        payload: NDArray[np.uint8],
        begin: NDArray[np.int64],
        end: NDArray[np.int64],
        senders: NDArray[np.uint64],
        *,
        bare: bool,
    ) -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
        size = begin.size
        digests = np.empty(size, np.uint64)
        versions, pdus, verdicts = (np.empty(size, np.uint8) for _ in range(3))
        chosen = self._selectors
        digest(
            payload, begin, end, senders, int(bare), chosen.traps, chosen.first, chosen.prefix,
            chosen.part, self._scratch, digests, versions, pdus, verdicts,
        )  # fmt: skip
        return digests, versions, pdus, verdicts

    def _open(
        self,
        block: DatagramBlock,
        rows: NDArray[np.int64],
        senders: NDArray[np.uint64],
        columns: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
        inner: dict[int, tuple[bytes, Opened]],
    ) -> None:
        """Open v3 messages, and look at their PDUs as at those of the others."""
        digests, pdus, fates = columns
        good: list[int] = []
        parts: list[bytes] = []
        for d in rows.tolist():
            data, now_ns = _datagram(block, d), int(block.arrival_ns[d])
            try:
                opened = self._secure.open(data, now_ns)
            except DecodeError as error:
                fates[d] = Fate[error.reason.upper()]
                report = self._secure.report(data, error.reason, now_ns)
                if report is not None:
                    self._reply(block, d, report, at_once=True)
                continue
            inner[d] = (opened.scoped.pdu, opened)
            good.append(d)
            parts.append(opened.scoped.pdu)
        if not good:
            return
        length = np.array([len(part) for part in parts], np.int64)
        end = np.cumsum(length)
        payload = np.frombuffer(b"".join(parts), np.uint8)
        made, _, tags, verdicts = self._digest(
            payload, end - length, end, senders[good] ^ np.uint64(3), bare=True
        )
        digests[good], pdus[good], fates[good] = made, tags, verdicts

    def _count(
        self,
        block: DatagramBlock,
        first: int,
        last: int,
        columns: tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]],
        inner: dict[int, tuple[bytes, Opened]],
    ) -> None:
        """Count the notifications of one second; what is new gets a row."""
        digests, pdus, fates = columns
        known, runs = self._news, self._runs
        good = np.flatnonzero(fates[first:last] == 0) + first
        informs = (pdus[good] == Tag.INFORM).tolist()
        arrivals = block.arrival_ns[good].tolist()
        for d, key, inform, at_ns in zip(
            good.tolist(), digests[good].tolist(), informs, arrivals, strict=True
        ):
            news = known.get(key)
            if news is None:
                if len(runs.standing) >= self._options.resources_max:
                    self._close()
                news = known[key] = self._read(block, d, inner.get(d))
            if news is _REFUSED:
                fates[d] = Fate.UNKNOWN_COMMUNITY
            elif not inform or self._inform(block, d, inner.get(d)):
                if runs.add(news, at_ns):
                    self._tell(news, at_ns, 1, 0)
            else:
                fates[d] = Fate.DUPLICATE

    def _inform(self, block: DatagramBlock, d: int, inner: tuple[bytes, Opened] | None) -> bool:
        """Answer an inform; return whether it is a new one."""
        data = _datagram(block, d)
        if inner is not None:
            pdu = read_pdu(inner[0], 0, len(inner[0]))
            bindings = b"".join(
                write_varbind(one.oid, element(one.tag, one.content)) for one in pdu.varbinds
            )
            now_ns = int(block.arrival_ns[d])
            answer = self._secure.response(inner[1], pdu.request_id, bindings, now_ns)
        else:
            envelope = read_envelope(data)
            pdu = read_pdu(data, envelope.start, envelope.stop)
            answer = answer_inform(data, envelope)
        self._reply(block, d, answer, at_once=False)
        key = (
            int(block.exporter_high[d]),
            int(block.exporter_low[d]),
            int(block.exporter_port[d]),
            pdu.request_id,
        )
        if key in self._informs:
            self._informs.move_to_end(key)
            return False
        self._informs[key] = None
        if len(self._informs) > INFORMS_MAX:
            self._informs.popitem(last=False)
        return True

    def _reply(self, block: DatagramBlock, d: int, data: bytes, *, at_once: bool) -> None:
        if len(self.replies) >= REPLIES_MAX:  # nobody takes them, or a flood: the sender asks again
            self._early.add("reply")
            return
        high, low = int(block.exporter_high[d]), int(block.exporter_low[d])
        self.replies.append(Reply(high, low, int(block.exporter_port[d]), data, at_once))

    # ---- one notification

    def _read(self, block: DatagramBlock, d: int, inner: tuple[bytes, Opened] | None) -> News:
        """Return what a notification says, or _REFUSED."""
        data = _datagram(block, d)
        detail: dict[str, Any] = {}
        if inner is not None:
            pdu = read_pdu(inner[0], 0, len(inner[0]))
            detail["version"], detail["user"] = "v3", inner[1].user.name
        else:
            envelope = read_envelope(data)
            if self._communities and envelope.community not in self._communities:
                return _REFUSED
            pdu = read_pdu(data, envelope.start, envelope.stop)
            detail["version"] = VERSIONS[envelope.version]
        notification = notification_of(pdu)
        sender = address_text(int(block.exporter_high[d]), int(block.exporter_low[d]))
        address = notification.address if self._options.device == "stated" else ""
        device = self._options.names.get(address or sender, address or sender)
        trap = self._mapping.name(notification.trap_oid)
        detail |= {"trap": trap, "trap_oid": notification.trap_oid, "sender": sender}
        if notification.uptime >= 0:
            detail["uptime_seconds"] = notification.uptime / 100
        if notification.enterprise:
            detail["enterprise"] = notification.enterprise
        if pdu.tag == Tag.INFORM:
            detail["inform"] = True
        said = self._mapping.read(notification, variables_max=VARIABLES_MAX)
        detail["variables"] = said.variables
        meaning = self._mapping.meaning(notification, said)
        if meaning is None and self._options.unmapped == "log":
            return self._unmapped(device, trap, notification, detail)
        if meaning is None:
            title = f"{trap} of {device}"
            meaning = Meaning(
                trap, "indeterminate", (), "", "", title, "other", "other", 0.0, said.fields
            )
        return self._alarm(device, trap, meaning, detail)

    def _unmapped(
        self, device: str, trap: str, notification: Notification, detail: dict[str, Any]
    ) -> News:
        said = ", ".join(f"{name}={text}" for name, text in detail["variables"].items())
        row = {
            "host": device,
            "facility": _UNMAPPED_FACILITY,
            "severity": _UNMAPPED_SEVERITY,
            "app": "snmp-trap",
            "pattern_id": stable_id(f"snmp-trap|{notification.trap_oid}"),
            "message": f"{trap}: {said}" if said else trap,
            "event": "snmp-trap",
            "message_id": trap,
            "detail": detail,
        }
        identity = f"log|{device}|{notification.trap_oid}"
        return News(identity, "", row, (device, trap))

    def _alarm(self, device: str, trap: str, meaning: Meaning, detail: dict[str, Any]) -> News:
        resource = self._label(device, meaning)
        entity = f"{device}:{resource}" if resource else device
        title = fill_title(meaning.title, meaning.fields, resource=resource, device=device)
        said = ", ".join(f"{name}={text}" for name, text in detail["variables"].items())
        row = {
            "kind": meaning.kind,
            "entity": entity,
            "title": title,
            "event_type": meaning.event_type,
            "probable_cause": meaning.cause,
            "text": f"{trap}: {said}" if said else trap,
            "foreign_id": detail["trap_oid"],
            "detail": detail,
            "clear_after_seconds": meaning.clear_after_seconds,
        }
        return News(f"{meaning.kind}|{entity}", meaning.severity, row, (device, trap))

    def _label(self, device: str, meaning: Meaning) -> str:
        """Return what a resource is called, the same for the clear as it was for the raise.

        Of linkDown and linkUp one may carry ifName and the other not: while an alarm is up, its
        resource keeps the name it was raised under.
        """
        if not meaning.key:
            return meaning.label
        key = "|".join((device, meaning.kind, *meaning.key))
        known, is_open = self._labels.get(key, ("", False))
        label = known if known and (is_open or not meaning.label) else meaning.label
        label = label or meaning.fallback
        now = (label, meaning.severity != CLEARED)
        self.changes += now != (known, is_open)
        self._labels[key] = now
        self._labels.move_to_end(key)
        return label

    def _labels_trim(self) -> None:
        while len(self._labels) > self._options.resources_max:
            self._labels.popitem(last=False)
            self._early.add("label_forgotten")

    # ---- rows

    def _tell(self, news: News, at_ns: int, count: int, changes: int) -> None:
        """Make a row of news, or of `count` more of the same with `changes` of state among them."""
        row = dict(news.row)
        detail = dict(row["detail"])
        text = "text" if news.severity else "message"
        if count > 1:
            detail["count"] = count
            row[text] += f"; {count} such traps within this second"
        if changes:
            detail["changes"] = changes
            row[text] += f", {changes} changes of state among them"
        row["detail"] = detail
        if news.severity:
            self._tell_alarm(news, row, at_ns, count)
        else:
            del row["detail"]
            row["variables"] = msgspec.json.encode(detail | {"count": count}).decode()
            self._logs.append({**row, "time_ns": at_ns, "arrival_ns": at_ns})
            self._became.add("log")
        self._became.add("counted", count - 1)

    def _tell_alarm(self, news: News, row: dict[str, Any], at_ns: int, count: int) -> None:
        seconds = row.pop("clear_after_seconds")
        cleared = news.severity == CLEARED
        self._alarms.append(
            alarm_row(
                source=self._name,
                severity=news.severity,
                changed_ns=at_ns,
                occurrence=count,
                **row,
            )
        )
        self._became.add("clear" if cleared else "alarm")
        self._timers.pop(news.identity, None)
        if seconds:
            self.changes += 1
            self._timers[news.identity] = (at_ns + round(seconds * 1e9), row)

    def _close(self) -> None:
        """End the open second: tell the counts."""
        rest, counts = self._runs.close()
        self._news.clear()
        self._labels_trim()
        for one in rest:
            self._tell(one.news, one.last_ns, one.more, one.folded)
        if counts:
            self._samples(counts)

    def _taken(self, at_ns: int) -> list[Batch]:
        """Return the rows made since the last call."""
        made = [
            batch_from_rows(schema, rows, source=self._name, arrival_ns=at_ns)
            for schema, rows in ((ALARM, self._alarms), (LOG, self._logs))
            if rows
        ]
        new = self._series.new()
        if new is not None:
            made.append(new)
        if self._counts:
            made.append(batch_from_rows(SAMPLE, self._counts, source=self._name, arrival_ns=at_ns))
        self._alarms, self._logs, self._counts = [], [], []
        return made

    def _samples(self, counts: dict[tuple[str, str], int]) -> None:
        """Count notifications by device and trap, so that a storm or a silence shows as a series."""
        at_ns = self._runs.second * SECOND_NS + SECOND_NS - 1
        for (device, trap), count in counts.items():
            names = self._counted.setdefault(device, set())
            if trap not in names and len(names) >= TRAPS_PER_DEVICE_MAX:
                trap = "other"
            names.add(trap)
            series = self._series.id(device, "snmp_traps", {"trap": trap}, unit="{trap}")
            row = {"time_ns": at_ns, "arrival_ns": at_ns, "series_id": series, "value": count}
            self._counts.append({**row, "kind": SampleKind.DELTA})
        if len(self._counted) > self._options.senders_max:
            self._counted.clear()

    def advance(self, frontier_ns: int) -> list[Batch]:
        """End the second before the frontier and alarms whose time is over; report the ledger."""
        if self._runs.counts and (self._runs.second + 1) * SECOND_NS <= frontier_ns:
            self._close()
        due = [key for key, (at_ns, _) in self._timers.items() if at_ns <= frontier_ns]
        for key in sorted(due):
            self._alarms.append(self._over(*self._timers.pop(key), frontier_ns))
        while len(self._timers) > self._options.resources_max:  # the one set longest ago
            self._alarms.append(self._over(*self._timers.popitem(last=False)[1], frontier_ns))
            self._early.add("timer_fired_early")
        return self._taken(frontier_ns) + self._ledger.report(frontier_ns)

    def _over(self, due_ns: int, news: dict[str, Any], frontier_ns: int) -> dict[str, Any]:
        text = "No trap says that this is over; it was not repeated in its time"
        return alarm_row(
            source=self._name,
            severity=CLEARED,
            changed_ns=min(due_ns, frontier_ns),
            **{**news, "text": text},
        )

    # ---- state

    def snapshot(self, out: SnapshotWriter) -> None:
        """Write the open second, names in use, timers, engines of others and informs seen."""
        state = _State(
            self._runs.second,
            list(self._runs.standing.values()),
            [(device, trap, count) for (device, trap), count in self._runs.counts.items()],
            [(key, label, is_open) for key, (label, is_open) in self._labels.items()],
            [(key, due_ns, news) for key, (due_ns, news) in self._timers.items()],
            self._secure.engines.rows(),
            list(self._informs),
        )
        data = msgspec.msgpack.encode(state)
        write_array(out, "snmp", np.frombuffer(data, np.uint8))

    def restore(self, state: SnapshotReader) -> None:
        """Take it back."""
        data = read_array(state, "snmp")
        if data is None or not data.size:
            return
        kept = msgspec.msgpack.decode(data.tobytes(), type=_State)
        self._runs.second = kept.second
        self._runs.standing = {one.news.identity: one for one in kept.standing}
        self._runs.counts = {(device, trap): count for device, trap, count in kept.counts}
        self._labels.update({key: (label, is_open) for key, label, is_open in kept.labels})
        self._timers.update({key: (due_ns, news) for key, due_ns, news in kept.timers})
        for row in kept.engines:
            self._secure.engines.put(*row)
        self._informs.update(dict.fromkeys(kept.informs))


def _datagram(block: DatagramBlock, d: int) -> bytes:
    at = int(block.offset[d])
    return block.payload[at : at + int(block.length[d])].tobytes()


def _sender_hash(block: DatagramBlock) -> NDArray[np.uint64]:
    """Return a number for each datagram's sender, never 0: whose addresses differ, differ."""
    high = block.exporter_high * np.uint64(0x9E3779B97F4A7C15)
    mixed = (high ^ block.exporter_low) * np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(29)
    mixed[mixed == 0] = 1
    return mixed


def make(settings: ListenerSettings, options: TrapOptions, context: Context) -> TrapDecoder:  # noqa: ARG001
    """Return the decoder of an input."""
    return TrapDecoder(options, context)


# What `tocsin decode` says of messages that gave nothing.
REASONS = {
    "collector_snmp_messages_total": {
        "truncated": "SNMP messages with an element beyond their end",
        "bad_length": "SNMP messages with a length that is none (indefinite, too long)",
        "bad_type": "SNMP messages with an element of a type that is not due",
        "bad_value": "SNMP messages with a number or address of a wrong size",
        "bad_oid": "SNMP messages with an OID that is none",
        "bad_version": "SNMP messages of an unknown version",
        "no_trap_oid": "traps that name no trap",
        "not_a_notification": "SNMP messages that are no trap and no inform",
        "unknown_community": "traps with a community that is not believed",
        "unknown_engine": "SNMPv3 messages that ask who we are",
        "unknown_user": "SNMPv3 messages of a user that is not known here",
        "wrong_digest": "SNMPv3 messages whose digest is wrong (password, protocol)",
        "not_in_time_window": "SNMPv3 messages that are too old",
        "unsupported_security_level": "SNMPv3 messages below or above their user's level",
        "decryption_error": "SNMPv3 messages that could not be decrypted",
    }
}
COLLECTOR = Part(
    "SNMP traps and informs (v1, v2c, v3)",
    make,
    TrapOptions,
    reads=Reads((162, 5162, 10162), reasons=REASONS),
)
