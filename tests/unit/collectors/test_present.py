"""What `tocsin decode` promises: names, values, nulls, unknown elements, exit codes."""

from pathlib import Path

from click.testing import CliRunner

from tests.support.decoding import decoded
from tocsin.cli.decode import decode

FOLDER = Path(__file__).parents[2] / "captures"


def test_addresses_are_text_counts_integers_and_absent_is_null() -> None:
    rows, _ = decoded(FOLDER / "softflowd-v5.pcapng")
    row = rows[0]
    assert row["schema"] == "flow"
    assert {row["source_address"], row["destination_address"]} == {"10.77.0.1", "10.77.0.2"}
    assert isinstance(row["octets"], int)
    assert row["vlan_id"] is None
    assert "fields_present" not in row
    assert row["flow_end_ns"] >= row["flow_start_ns"] > 0


def test_unknown_elements_are_kept_raw() -> None:
    rows, _ = decoded(FOLDER / "openvswitch-ipfix.pcapng")
    assert rows[0]["elements"]["0:82"] == b"pa".hex()  # interfaceName, of variable length


def test_explain_names_element_offset_and_bytes() -> None:
    rows, _ = decoded(FOLDER / "pmacct-ipfix.pcapng", explain=True)
    row = rows[0]
    octets = next(f for f in row["explain"] if f["field"] == "octets")
    assert octets["element"] == "0:1"
    assert int(octets["bytes"], 16) == row["octets"]


def test_a_missing_template_is_told_and_exits_3(tmp_path: Path) -> None:
    header = b"\x00\x0a\x00\x1c" + b"\x5f" * 4 + bytes(8)
    path = tmp_path / "orphan.dat"
    path.write_bytes(header + b"\x01\x00\x00\x0c" + bytes(8))
    done = CliRunner().invoke(decode, [str(path), "-o", "jsonl"])
    assert done.exit_code == 3
    assert "without their template (256 of" in done.output


def test_every_output_form_prints_each_record() -> None:
    path = str(FOLDER / "softflowd-v5.pcapng")
    for form, extra in (("jsonl", 0), ("csv", 1), ("table", 1)):
        done = CliRunner().invoke(decode, [path, "-o", form])
        assert done.exit_code == 0
        body = [line for line in done.output.splitlines() if " records" not in line]
        assert len(body) == len(decoded(Path(path))[0]) + extra


LOG_LINES = (
    "<187>Nov 28 10:00:00 r1 %LINK-3-UPDOWN: Interface Gi0/1, changed state to down",
    "<14>Nov 28 10:00:01 r1 app: two\nlines",
)


def of_log_lines(folder: Path, *options: str) -> list[str]:
    path = folder / "lines.log"
    path.write_text("".join(f"{len(line)} {line}" for line in LOG_LINES))
    done = CliRunner().invoke(decode, [str(path), "--protocol", "syslog", *options])
    assert done.exit_code == 0, done.output
    return done.output.split("\n")


def test_a_table_shows_times_and_a_record_in_one_line(
    tmp_path: Path,
) -> None:
    lines = of_log_lines(tmp_path)
    heads = [line.split()[0] for line in lines if line.startswith(("time ", "changed "))]
    assert sorted(set(heads)) == ["changed", "time"]
    (odd,) = (line for line in lines if "two" in line)
    assert odd.endswith("two\\x0alines")
    assert odd.startswith("20")
    assert "T10:00:01.000000Z" in odd
    assert "1 chunk of a stream, 3 records" in lines


def test_explain_goes_on_past_what_has_no_origins(tmp_path: Path) -> None:
    lines = of_log_lines(tmp_path, "--explain")
    assert any("interface-down" in line or "raised" in line for line in lines)
    assert any("two" in line for line in lines)


def test_templates_alone_are_told(tmp_path: Path) -> None:
    templates = b"\x00\x02\x00\x0c\x01\x00\x00\x01\x00\x08\x00\x04"
    path = tmp_path / "templates.dat"
    path.write_bytes(b"\x00\x0a\x00\x1c" + b"\x5f" * 4 + bytes(8) + templates)
    done = CliRunner().invoke(decode, [str(path)])
    assert "1 datagram, 0 records" in done.output
    assert "not shown: 1 template; --all shows them" in done.output
