"""3GPP PM files: both forms of lists, times, names, what is missing, doubted or broken."""

from datetime import UTC, timedelta, timezone

import pytest

from collectors.pm.xml import COUNTERS_MAX, JUNK_BYTES_MAX, Measurement, PmReader, read_measurements
from telemetry.errors import DecodeError

HEAD = '<measCollecFile xmlns="http://www.3gpp.org/ftp/specs/archive/32_series/32.435#measCollec">'
FILE_HEADER = (
    '<fileHeader dnPrefix="SubNetwork=1" vendorName="V"><fileSender localDn="OMC=1"/>'
    '<measCollec beginTime="2026-03-01T12:00:00Z"/></fileHeader>'
)
PERIOD = '<granPeriod duration="PT900S" endTime="2026-03-01T12:15:00Z"/>'
BEGIN_NS = 1_772_366_400_000_000_000  # 2026-03-01 12:00 UTC
NAMED = '<measType p="1">a</measType><measType p="2">b</measType>'


def pm(body: str, period: str = PERIOD, header: str = FILE_HEADER) -> bytes:
    """Return a file with one measInfo."""
    element = '<managedElement localDn="ManagedElement=A"/>'
    info = f'<measInfo measInfoId="i">{period}{body}</measInfo>'
    return f"{HEAD}{header}<measData>{element}{info}</measData></measCollecFile>".encode()


def value(results: str, of: str = "Cell=7") -> str:
    return f'<measValue measObjLdn="{of}">{results}</measValue>'


def read(data: bytes, reader: PmReader | None = None) -> tuple[list[Measurement], PmReader]:
    reader = reader or PmReader()
    return list(read_measurements([data], reader)), reader


def test_both_forms_of_lists() -> None:
    """measTypes with measResults, and measType with r, whatever the order of r."""
    listed = "<measTypes>a b</measTypes>" + value("<measResults> 1 2.5 </measResults>")
    single = NAMED + value('<r p="2">2.5</r><r p="1">1</r>')
    mixed = NAMED + value("<measResults>1 2.5</measResults>")
    for body in (listed, single, mixed):
        (one,), reader = read(pm(body))
        assert one.values == {"a": 1.0, "b": 2.5}
        assert (one.dn, one.begin_ns, one.seconds, one.suspect) == (
            "SubNetwork=1,ManagedElement=A,Cell=7", BEGIN_NS, 900.0, False,
        )  # fmt: skip
        assert (reader.report.sender, reader.report.results) == ("SubNetwork=1,OMC=1", 2)


def test_the_form_of_28_532() -> None:
    """Another namespace, root, sender and element; the same numbers."""
    data = pm(NAMED + value('<r p="1">1</r><r p="2">2</r>')).decode()
    data = data.replace("measCollecFile", "measDataFile").replace(
        "32.435#measCollec", "28.532#measData"
    )
    data = data.replace("<measCollec ", "<measData ").replace(
        "managedElement localDn", "measEntity localDn"
    )
    data = data.replace('fileSender localDn="OMC=1"', 'fileSender senderName="OMC=1"')
    (one,), reader = read(data.encode())
    assert one.dn == "SubNetwork=1,ManagedElement=A,Cell=7"
    assert reader.report.sender == "SubNetwork=1,OMC=1"


@pytest.mark.parametrize(("results", "fate", "amount"), [
    pytest.param('<r p="1">1</r>', "missing", 1, id="r-not-there"),
    pytest.param('<r p="1">1</r><r p="2"/>', "missing", 1, id="r-empty"),
    pytest.param('<r p="1">1</r><r p="2">NIL</r>', "missing", 1, id="nil"),
    pytest.param('<r p="1">1</r><r p="2">NaN</r>', "missing", 1, id="nan"),
    pytest.param('<r p="1">1</r><r p="2">up</r>', "not_numbers", 1, id="word"),
    pytest.param('<r p="1">1</r><r p="2">1e999</r>', "not_numbers", 1, id="infinite"),
    pytest.param('<r p="1">1</r><r p="2">1_0</r>', "not_numbers", 1, id="underscore"),
    pytest.param('<r p="1">1</r><r p="2">0,4,7</r>', "lists", 1, id="histogram"),
    pytest.param('<r p="1">1</r><r p="9">5</r>', "misaligned", 1, id="p-of-no-counter"),
    pytest.param('<r p="1">1</r><r p="1">5</r>', "missing", 0, id="p-twice-the-first-counts"),
])  # fmt: skip
def test_what_does_not_come_is_no_zero(results: str, fate: str, amount: int) -> None:
    """Counted by what became of it; the neighbour stays."""
    (one,), reader = read(pm(NAMED + value(results)))
    assert one.values == {"a": 1.0}
    assert getattr(reader.report, fate) == amount


def test_lists_that_do_not_fit_are_not_guessed() -> None:
    """A blank in a counter's name shifts all that follow: none of them is taken (O-RAN sim files)."""
    body = "<measTypes>a b. c</measTypes>" + value("<measResults>1 2</measResults>")
    (one,), reader = read(pm(body))
    assert (one.values, reader.report.misaligned) == ({}, 2)


def test_suspect_is_per_object() -> None:
    """The next object is trusted again."""
    body = (
        NAMED + value('<r p="1">1</r><suspect>true</suspect>') + value('<r p="1">2</r>', "Cell=8")
    )
    made, reader = read(pm(body))
    assert [(m.dn[-1], m.suspect) for m in made] == [("7", True), ("8", False)]
    assert reader.report.suspect == 1


@pytest.mark.parametrize(("period", "seconds", "begin_s"), [
    ('<granPeriod duration="PT15M" endTime="2026-03-01T14:15:00.000+02:00"/>', 900, 0),
    ('<granPeriod duration="PT1H" endTime="2026-03-01T13:00:00Z"/>', 3600, 0),
    ('<granPeriod duration="P1D" endTime="2026-03-02T00:00:00Z"/>', 86_400, -43_200),
    ('<granPeriod endTime="2026-03-01T12:15:00"/>', 900, -3600),
    ('<granPeriod duration="PT900S"/>', 900, 0),
    ("", 900, 0),
])  # fmt: skip
def test_periods(period: str, seconds: int, begin_s: int) -> None:
    """Any duration; no zone is that of the settings; what is not stated is the file's begin."""
    zone = timezone(timedelta(hours=1)) if '15:00"' in period else UTC
    (one,), _ = read(pm(NAMED + value('<r p="1">1</r>'), period), PmReader(zone))
    assert (one.seconds, (one.begin_ns - BEGIN_NS) / 1e9) == (seconds, begin_s)


def test_results_without_any_time_are_counted() -> None:
    """Neither an end nor a begin that can be read."""
    made, reader = read(pm(NAMED + value('<r p="1">1</r>'), "", "<fileHeader/>"))
    assert (made, reader.report.no_period) == ([], 1)


def test_a_second_element_has_its_own_name() -> None:
    """Also one that says none at all: it does not inherit its neighbour's."""
    infos = (
        f"<measInfo>{PERIOD}{NAMED}{value('<r p=' + chr(34) + '1' + chr(34) + '>1</r>')}</measInfo>"
    )
    data = (
        f'{HEAD}{FILE_HEADER}<measData><managedElement localDn="ManagedElement=A"/>{infos}</measData>'
        f'<measData><managedElement localDn="SubNetwork=1,ManagedElement=B"/>{infos}</measData>'
        f"<measData>{infos}</measData></measCollecFile>"
    )
    made, _ = read(data.encode())
    assert [m.dn for m in made] == [
        "SubNetwork=1,ManagedElement=A,Cell=7", "SubNetwork=1,ManagedElement=B,Cell=7",
        "SubNetwork=1,Cell=7",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "junk", [b"", b"\n\n", b"\xef\xbb\xbf", b"HTTP header\r\n\r\n", b"x" * 5000]
)
def test_junk_before_the_declaration(junk: bytes) -> None:
    """Files come through gateways that write before them."""
    data = (
        junk
        + b'<?xml version="1.0" encoding="UTF-8"?>\n<!-- c -->'
        + pm(NAMED + value('<r p="1">1</r>'))
    )
    assert len(read(data)[0]) == 1
    assert len(read(data + b"\n")[0]) == 1
    assert len(read(data + b"trailing junk")[0]) == 1


def test_any_cut_gives_the_same() -> None:
    """Octet by octet, as one, and in UTF-16."""
    data = b"junk" + pm(NAMED + value('<r p="1">1</r><r p="2">7</r>') * 3)
    whole = read(data)[0]
    assert list(read_measurements((data[i : i + 1] for i in range(len(data))), PmReader())) == whole
    wide = ('<?xml version="1.0" encoding="UTF-16"?>' + data[4:].decode()).encode("utf-16")
    assert read(wide)[0] == whole


BOMB = (
    b'<?xml version="1.0"?><!DOCTYPE m [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><measCollecFile>&b;'
)
GOOD = pm(NAMED + value('<r p="1">1</r>'))


@pytest.mark.parametrize(("data", "reason"), [
    pytest.param(b"", "no_xml", id="empty"),
    pytest.param(b"no xml at all", "no_xml", id="text"),
    pytest.param(b"x" * (JUNK_BYTES_MAX + 1), "no_xml", id="long-junk"),
    pytest.param(GOOD[:-20], "not_well_formed", id="cut"),
    pytest.param(GOOD.replace(b"</measInfo>", b""), "not_well_formed", id="not-nested"),
    pytest.param(b"<?xml version='1.0'?><html><body/></html>", "no_pm", id="other-root"),
    pytest.param(BOMB, "doctype", id="entities"),
    pytest.param(GOOD.replace(b"<measData>", b"<measData>" + b"<x>" * 90), "too_deep", id="deep"),
    pytest.param(GOOD.replace(b">1<", b">" + b"1" * (1 << 20) + b"1<"), "too_long", id="long-text"),
    pytest.param(GOOD.replace(b"Cell=7", b"Cell=\xff\xfe"), "not_well_formed", id="not-utf-8"),
])  # fmt: skip
def test_files_that_are_none(data: bytes, reason: str) -> None:
    """One reason each, in words that say what to look for."""
    with pytest.raises(DecodeError) as raised:
        read(data)
    assert raised.value.reason == reason


def test_counters_of_one_info_are_bounded() -> None:
    """A file cannot make us keep any number of names."""
    names = "".join(f'<measType p="{i}">c{i}</measType>' for i in range(COUNTERS_MAX + 10))
    (one,), reader = read(pm(names + value(f'<r p="1">1</r><r p="{COUNTERS_MAX + 5}">1</r>')))
    assert (len(one.values), reader.report.misaligned) == (1, 1)
