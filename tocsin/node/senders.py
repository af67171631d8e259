"""What each sender last said and what became of it: the ledgers of all protocols, added up for people."""

import contextlib
from collections import OrderedDict
from collections.abc import Iterable

import msgspec

from telemetry.batch import Batch
from telemetry.identity import address_text
from telemetry.schemas import LEDGER, OPTION

SENDERS_MAX = 4096
TEMPLATED = ("netflow9", "ipfix")
WINDOW_NS = 60_000_000_000  # rates are those of a minute
_SUMS = (
    "sent", "decoded", "lost_wire", "lost_kernel", "undecodable", "no_template", "malformed", "shed",
    "restarts", "records",
)  # fmt: skip
_MISSING = ("lost_wire", "lost_kernel", "undecodable", "shed")  # the rest is part of these


class ExporterFacts(msgspec.Struct):
    """What `collectors.flow.exporter_facts` tells of one exporter."""

    templates: int = 0
    unread: int = 0
    unread_first: list[str] = []
    rates: list[int] = []
    rate_in_records: bool = False


class SenderStatus(msgspec.Struct, kw_only=True):
    """One sender and protocol since the node's start; the sums are in the protocol's own unit."""

    address: str
    protocol: str
    last_ns: int  # when its last record was told of
    rate: float = -1.0  # records a second, of the last full minute; -1 = not known yet
    clock_offset_ns: int = 0
    sent: int = 0
    decoded: int = 0
    lost_wire: int = 0
    lost_kernel: int = 0
    undecodable: int = 0
    no_template: int = 0
    malformed: int = 0
    shed: int = 0
    restarts: int = 0
    records: int = 0
    window_ns: int = 0
    in_window: int = 0
    names: bool = False  # it named interfaces, or polling did
    # Of flow exporters, where they sent templates.
    templates: int = 0
    unread: int = 0  # elements of its templates that become no column
    unread_first: list[str] = []  # some of them, enterprise:element
    rates: list[int] = []  # sampling rates that its options data state
    rate_in_records: bool = False


class SenderBook:
    """Adds up ledger rows by (sender, protocol); the ones heard of the longest ago give way."""

    def __init__(self) -> None:
        self._senders: OrderedDict[tuple[int, int, str], SenderStatus] = OrderedDict()
        self._named: OrderedDict[tuple[int, int], None] = OrderedDict()  # who named interfaces
        self._facts: OrderedDict[tuple[int, int], ExporterFacts] = OrderedDict()
        self.totals: dict[str, dict[str, int]] = {}  # by protocol: what was sent, what is missing

    def take(self, batches: Iterable[Batch]) -> None:
        """Add the ledgers among the batches of a tick."""
        for batch in batches:
            if batch.schema.name == LEDGER.name and batch.rows:
                self._add(batch)
            elif batch.schema.name == OPTION.name and batch.rows:
                self._name(batch)

    def _name(self, batch: Batch) -> None:
        highs, lows = batch["exporter_address_high"], batch["exporter_address_low"]
        tables, names = batch.texts("table"), batch.texts("name")
        for i, (table, name) in enumerate(zip(tables, names, strict=True)):
            sender = int(highs[i]), int(lows[i])
            if table == "interface":
                self._named[sender] = None
            elif table == "exporter":
                with contextlib.suppress(msgspec.DecodeError):  # not ours, then: nothing is known
                    self._facts[sender] = msgspec.json.decode(name, type=ExporterFacts)
                    self._facts.move_to_end(sender)
        while len(self._named) > SENDERS_MAX:
            self._named.popitem(last=False)
        while len(self._facts) > SENDERS_MAX:
            self._facts.popitem(last=False)

    def _add(self, batch: Batch) -> None:
        protocols = batch.texts("protocol")
        columns = {name: batch[name].tolist() for name in _SUMS}
        for i, (high, low, at_ns, offset_ns) in enumerate(
            zip(
                batch["exporter_address_high"].tolist(),
                batch["exporter_address_low"].tolist(),
                batch["arrival_ns"].tolist(),
                batch["clock_offset_ns"].tolist(),
                strict=True,
            )
        ):
            key = (high, low, protocols[i])
            one = self._senders.get(key)
            records = columns["records"][i]
            if one is None:
                if len(self._senders) >= SENDERS_MAX:
                    self._senders.popitem(last=False)
                one = self._senders[key] = SenderStatus(
                    address=address_text(high, low), protocol=protocols[i], last_ns=at_ns,
                    window_ns=at_ns,
                )  # fmt: skip
                one.in_window = -records  # of before the window
            self._senders.move_to_end(key)
            for name in _SUMS:
                setattr(one, name, getattr(one, name) + columns[name][i])
            total = self.totals.setdefault(protocols[i], {"sent": 0, "missing": 0})
            total["sent"] += columns["sent"][i]
            total["missing"] += sum(columns[name][i] for name in _MISSING)
            one.last_ns = max(one.last_ns, at_ns)
            one.clock_offset_ns = offset_ns
            one.in_window += records
            if at_ns - one.window_ns >= WINDOW_NS:
                one.rate = one.in_window * 1e9 / (at_ns - one.window_ns)
                one.window_ns, one.in_window = at_ns, 0

    def statuses(self, address: str = "") -> list[SenderStatus]:
        """Return all senders, or those of one address, those heard of last first."""
        chosen = (
            (k, one) for k, one in reversed(self._senders.items()) if address in ("", one.address)
        )
        return [self._status(key[:2], one) for key, one in chosen]

    def _status(self, sender: tuple[int, int], one: SenderStatus) -> SenderStatus:
        spent_ns = one.last_ns - one.window_ns
        rate = one.in_window * 1e9 / spent_ns if one.rate < 0 and spent_ns > 0 else one.rate
        facts = self._facts.get(sender) if one.protocol in TEMPLATED else None
        known = msgspec.structs.asdict(facts) if facts else {}
        return msgspec.structs.replace(one, rate=rate, names=sender in self._named, **known)
