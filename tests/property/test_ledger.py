"""The ledger closes: what an exporter sent = decoded + each named loss, whatever the network did.

The simulated exporter knows what it sent; the network loses, doubles and delays datagrams and the
kernel drops some. The sums must be those of the simulation, not only add up among themselves.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collectors.block import DatagramBlock
from collectors.config import FlowDecoderSettings
from collectors.datagram import Datagram, pack
from collectors.flow.decoder import FlowDecoder
from collectors.flow.sflow5 import SflowDecoder
from telemetry.identity import address_pair
from tests.support.flow_messages import (
    ARRIVAL_NS,
    data_set,
    ipfix,
    template_set,
    v5,
    v9,
)
from tocsin.testing import make_context

FIELDS = [(8, 4), (12, 4), (1, 4), (2, 4)]
SECOND = 1_000_000_000
SFLOW_RATE = 100
HIGH, LOW = address_pair("192.0.2.9")


def records(n: int) -> bytes:
    return struct.pack("!IIII", 1, 2, 300, 4) * n


def sflow(sequence: int, uptime_ms: int = 1) -> bytes:
    head = struct.pack("!IIIIII", 5, 1, 0xC0000201, 7, sequence, uptime_ms)
    sample = struct.pack("!IIIIIIIIII", 1, 72, sequence, 3, SFLOW_RATE, 0, 0, 1, 2, 1)
    # A sampled IPv4 header.
    packet = struct.pack("!IIIIIIIIII", 3, 32, 300, 6, 1, 2, 1024, 443, 16, 0)
    return head + struct.pack("!I", 1) + sample + packet


Make = Callable[[int, int, int, bool], bytes]
MAKERS: dict[str, Make] = {
    "v5": lambda sequence, n, boot, _: v5(*[(1, 2, 3)] * n, sequence=sequence),
    "v9": lambda sequence, n, boot, announce: v9(
        *([template_set(256, FIELDS, version=9)] if announce else []),
        data_set(256, records(n)),
        sequence=sequence,
        uptime_ms=10_000_000 - boot * 900_000,
    ),
    "ipfix": lambda sequence, n, boot, announce: ipfix(
        *([template_set(256, FIELDS)] if announce else []), data_set(256, records(n)),
        sequence=sequence,
    ),
    "sflow": lambda sequence, n, boot, _: sflow(sequence),
}  # fmt: skip


@dataclass
class Sent:
    """A datagram on its way."""

    data: bytes
    first: int  # place of its first unit in all that was sent
    units: int
    epoch: int
    fate: str = "lost"


@dataclass
class Exporter:
    protocol: str
    sequence: int
    sent: list[Sent] = field(default_factory=list)
    total: int = 0
    epoch: int = 0

    def send(self, n: int) -> None:
        units = n if self.protocol in ("v5", "ipfix") else 1
        data = MAKERS[self.protocol](self.sequence & 0xFFFFFFFF, n, self.epoch, not self.sent)
        self.sent.append(Sent(data, self.total, units, self.epoch))
        self.sequence += units
        self.total += units

    def restart(self, sequence: int) -> None:
        self.sequence, self.epoch = sequence, self.epoch + 1


def arrive(
    datagrams: list[Sent], drops: int = 0, *, first: int = 0, step_ns: int = 1000
) -> DatagramBlock:
    parts = [
        Datagram(ARRIVAL_NS + i * step_ns, HIGH, LOW, 4000, 2055, one.data)
        for i, one in enumerate(datagrams, first)
    ]
    made = pack(parts)
    return DatagramBlock(
        made.payload, made.offset, made.length, made.exporter_high, made.exporter_low,
        made.exporter_port, made.arrival_ns, drops, made.frontier_ns,
    )  # fmt: skip


def totals(decoder: FlowDecoder | SflowDecoder) -> dict[str, int]:
    names = ("sent", "decoded", "lost_wire", "lost_kernel", "undecodable", "shed", "duplicate")
    made = dict.fromkeys((*names, "restarts"), 0)
    for batch in decoder.advance(ARRIVAL_NS):
        for name in made if batch.schema.name == "ledger" else ():
            made[name] += int(batch[name].astype(np.int64).sum())
    return made


def closes(said: dict[str, int]) -> bool:
    parts = ("decoded", "lost_wire", "lost_kernel", "undecodable", "shed")
    return said["sent"] == sum(said[name] for name in parts)


def decoder_of(protocol: str, **settings: int) -> FlowDecoder | SflowDecoder:
    made = FlowDecoderSettings(**settings)  # type: ignore[arg-type]
    return (SflowDecoder if protocol == "sflow" else FlowDecoder)(made, make_context())


# What the network does to each datagram: pass, lose on the wire, drop in the kernel, double, delay.
WAYS = ["pass"] * 8 + ["wire", "kernel", "double", "late"]
FATES = st.lists(st.tuples(st.integers(1, 6), st.sampled_from(WAYS)), min_size=4, max_size=60)


@pytest.mark.parametrize("protocol", list(MAKERS))
@given(FATES, st.integers(0, 2**32 - 1), st.data())
def test_the_ledger_says_what_the_network_did(
    protocol: str, fates: list[tuple[int, str]], start: int, data: st.DataObject
) -> None:
    # So many that its way of counting is beyond doubt: until then holes may wait to be counted.
    fates = [(1 + n % 3, "pass") for n in range(24)] + fates
    exporter = Exporter(protocol, start)
    for n, _ in fates:
        exporter.send(n)
    # The ends are sure to come: what is lost before the first and behind the last, nobody can see.
    fates = [*fates[:-1], (1, "pass")]
    came: list[Sent] = []
    waiting: list[tuple[int, Sent]] = []
    drops = 0
    for i, (one, (_, way)) in enumerate(zip(exporter.sent, fates, strict=True)):
        if way == "kernel":
            drops += 1
            one.fate = "kernel"
        elif way == "late":
            waiting.append((i + data.draw(st.integers(1, 4)), one))
        elif way != "wire":
            one.fate = "decoded"
            came += [one] * (2 if way == "double" else 1)
        for due, late in list(waiting):
            if due <= i and i < len(fates) - 1:
                late.fate = "decoded"
                came.append(late)
                waiting.remove((due, late))
    decoder = decoder_of(protocol)
    at = data.draw(st.integers(0, len(came)))
    decoder.decode(arrive(came[:at]))
    said = totals(decoder)
    assert closes(said)
    decoder.decode(arrive(came[at:], drops))
    for name, value in totals(decoder).items():
        said[name] += value
    assert closes(said)
    units = {
        fate: sum(one.units for one in exporter.sent if one.fate == fate)
        for fate in ("decoded", "lost", "kernel")
    }
    twice = sum(one.units for one, (_, way) in zip(exporter.sent, fates, strict=True)
                if way == "double")  # fmt: skip
    assert said["sent"] == exporter.total
    assert said["decoded"] == units["decoded"]
    assert said["duplicate"] == twice
    assert said["lost_wire"] + said["lost_kernel"] == units["lost"] + units["kernel"]
    assert said["undecodable"] == said["shed"] == said["restarts"] == 0
    if protocol in ("v9", "sflow") and at == 0:
        assert said["lost_kernel"] == units["kernel"]
    else:
        assert said["lost_kernel"] <= units["lost"] + units["kernel"]


@pytest.mark.parametrize("protocol", list(MAKERS))
@given(st.lists(st.integers(4, 12), min_size=2, max_size=4), st.data())
def test_a_restart_is_no_loss(protocol: str, lives: list[int], data: st.DataObject) -> None:
    exporter = Exporter(protocol, 0)
    for number, life in enumerate(lives):
        if number:
            exporter.restart(data.draw(st.integers(0, 2**31)))
        for n in range(life):
            exporter.send(1 + n % 3)
    decoder = decoder_of(protocol)
    decoder.decode(arrive(exporter.sent))
    said = totals(decoder)
    assert closes(said)
    # A restart that lands just ahead of the old number looks like loss, and cannot be told from it.
    if said["restarts"] == len(lives) - 1:
        assert said["sent"] == said["decoded"] == exporter.total
        assert said["lost_wire"] == 0


@given(
    st.lists(
        st.tuples(st.sampled_from(list("abcdef")), st.integers(0, 2**32 - 1), st.integers(0, 5)),
        max_size=40,
    )
)
def test_any_sequence_numbers_close(steps: list[tuple[str, int, int]]) -> None:
    """Nonsense on purpose: numbers at random, cut datagrams, sets without template, empty ones."""
    decoder = decoder_of("ipfix")
    made: list[bytes] = [ipfix(template_set(256, FIELDS))]
    number = 5
    for kind, anything, n in steps:
        number = {"a": number + n, "b": anything, "c": number - n}.get(kind, number)
        body = data_set(257 if kind == "d" else 256, records(n))
        message = ipfix(body, sequence=number & 0xFFFFFFFF)
        made.append(message[: len(message) - 3] if kind == "e" else message)
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made]))
    assert closes(totals(decoder))


def test_open_vswitch_states_the_last_records_number() -> None:
    """Where v5 wants the first one's: what looks like loss or like late datagrams is neither."""
    decoder = decoder_of("v5")
    sizes = [1, 4, 2, 7, 1, 1, 30, 3, 5, 2, 8, 1, 9, 4, 6]
    made, total = [], 0
    for n in sizes:
        total += n
        made.append(v5(*[(1, 2, 3)] * n, sequence=total - 1))
    for cut in range(1, 4):  # undecided, or decided
        again = decoder_of("v5")
        again.decode(arrive([Sent(one, 0, 0, 0) for one in made[:cut]]))
        assert totals(again)["lost_wire"] == 0
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made[:8] + made[9:]]))
    said = totals(decoder)
    assert closes(said)
    assert said["lost_wire"] == sizes[8]
    # Until it is learned, numbers that run behind look like datagrams that came twice.
    assert said["decoded"] + said["duplicate"] == total - sizes[8]
    assert said["duplicate"] <= sum(sizes[:4])


def test_an_exporter_that_counts_datagrams_where_the_standard_says_flows() -> None:
    decoder = decoder_of("v5")
    made = [v5(*[(1, 2, 3)] * 20, sequence=n) for n in range(50) if n not in (30, 31)]
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made[:10]]))
    first = totals(decoder)
    assert first["lost_wire"] == 0
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made[10:]]))
    said = totals(decoder)
    assert closes(said)
    assert said["lost_wire"] == 2
    assert said["decoded"] == 38


def test_an_exporter_that_counts_its_templates_too() -> None:
    """nProbe issue 208: templates in the IPFIX sequence look like loss, until one learns it."""
    decoder = decoder_of("ipfix")
    number, made = 0, []
    for n in range(40):
        sets = [data_set(256, records(3))]
        if n % 4 == 0:
            sets.insert(0, template_set(256, FIELDS))
        made.append(ipfix(*sets, sequence=number))
        number += 3 + (n % 4 == 0)
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made[:20]]))
    assert totals(decoder)["lost_wire"] == 0
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made[20:]]))
    said = totals(decoder)
    assert said["lost_wire"] == 0
    assert closes(said)


def test_two_processes_in_one_stream_are_no_loss() -> None:
    """pmacct issue 392: two senders of one address, port and domain."""
    decoder = decoder_of("ipfix")
    made = [ipfix(template_set(256, FIELDS), sequence=10)]
    for n in range(30):
        made.append(ipfix(data_set(256, records(2)), sequence=10 + 2 * n))
        made.append(ipfix(data_set(256, records(3)), sequence=3_000_000_000 + 3 * n))
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made]))
    said = totals(decoder)
    assert closes(said)
    assert said["lost_wire"] == 0
    assert said["restarts"] == 1
    assert said["decoded"] == 150


def test_sets_without_template_are_undecodable_and_come_back_when_it_comes() -> None:
    decoder = decoder_of("ipfix")
    made = [ipfix(data_set(256, records(4)), sequence=4 * n) for n in range(5)]
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in made]))
    said = totals(decoder)
    assert (said["sent"], said["undecodable"], said["decoded"]) == (16, 16, 0)
    decoder.decode(arrive([Sent(ipfix(template_set(256, FIELDS), sequence=20), 0, 0, 0)]))
    more = totals(decoder)
    assert (more["decoded"], more["undecodable"], more["sent"]) == (20, -16, 4)
    assert closes(more)


def test_over_the_limit_is_shed_and_said() -> None:
    decoder = decoder_of("v9", datagrams_per_second_max=10)
    exporter = Exporter("v9", 77)
    for _ in range(25):
        exporter.send(3)
    batches = decoder.decode(arrive(exporter.sent))
    said = totals(decoder)
    assert said["sent"] == said["decoded"] + said["shed"] == 25
    assert 10 <= said["decoded"] <= 20
    assert sum(b.rows for b in batches if b.schema.name == "flow") == 3 * said["decoded"]
    assert closes(said)


@pytest.mark.parametrize("protocol", list(MAKERS))
@pytest.mark.parametrize("surge", [0.9, 1.5, 4, 60])
def test_what_is_shed_is_made_up_for_by_the_rate_of_what_is_taken(
    protocol: str, surge: float
) -> None:
    limit, seconds = 40, 30
    total = round(limit * seconds * surge)
    exporter = Exporter(protocol, 0)
    for _ in range(total):
        exporter.send(2)
    rate, rows = (SFLOW_RATE, 1) if protocol == "sflow" else (1, 2)
    weighed, taken = [], []
    for cut in (total, 7):  # as one block, and in many: the same is taken
        decoder = decoder_of(protocol, datagrams_per_second_max=limit)
        rates = [np.zeros(0, np.int64)]
        for at in range(0, total, cut):
            part = exporter.sent[at : at + cut]
            for batch in decoder.decode(arrive(part, first=at, step_ns=seconds * SECOND // total)):
                if batch.schema.name == "flow":
                    rates.append(batch["sampling_rate"].astype(np.int64).clip(1))
        said = totals(decoder)
        assert closes(said)
        weighed.append(int(np.concatenate(rates).sum()) / rate / rows)
        taken.append(int(np.concatenate(rates).size) // rows)
        if protocol in ("v9", "sflow"):  # which count datagrams
            assert said["decoded"] == taken[-1]
    assert weighed[0] == weighed[1] == pytest.approx(total, rel=0.15)
    # Twice in the second in which it begins; a template is one more.
    assert taken[0] == taken[1] <= limit * (seconds + 2) + 1
    assert taken[0] == total if surge < 1 else taken[0] >= limit * seconds // 3


@pytest.mark.parametrize("protocol", ["v5", "ipfix"])
def test_shed_units_of_record_counters(protocol: str) -> None:
    decoder = decoder_of(protocol, datagrams_per_second_max=10)
    exporter = Exporter(protocol, 0)
    for n in range(25):
        exporter.send(1 + n % 4)
    batches = decoder.decode(arrive(exporter.sent))
    said = totals(decoder)
    assert closes(said)
    rows = sum(b.rows for b in batches if b.schema.name == "flow")
    assert said["decoded"] == rows < exporter.total
    assert said["shed"] == said["sent"] - said["decoded"] > 0


def test_a_cut_v5_datagram_is_undecodable_by_its_header() -> None:
    decoder = decoder_of("v5")
    cut = v5((1, 2, 3), (4, 5, 6), sequence=1)[:-1]
    parts = [v5((1, 2, 3)), cut, v5((1, 2, 3), sequence=3)]
    decoder.decode(arrive([Sent(one, 0, 0, 0) for one in parts]))
    said = totals(decoder)
    assert (said["sent"], said["decoded"], said["undecodable"]) == (4, 2, 2)
