"""3GPP PM files of others: every result by what became of it, and the numbers of files that are known."""

import gzip
import re
from pathlib import Path

import pytest

from collectors.pm.xml import Measurement, PmReader, read_measurements

MAPPER = "onap-pm-mapper/src/test/resources/mapper_test/mapping_data"


def read(path: Path) -> tuple[list[Measurement], PmReader, str]:
    """Return a file's measurements, its reader, and its text."""
    data = path.read_bytes()
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    reader = PmReader()
    return list(read_measurements([data], reader)), reader, data.decode()


def test_every_file_adds_up(shared: Path) -> None:
    """Results stated in the text = values + each named loss; counted by a regular expression."""
    files = sorted((shared / "captures/pm_xml").rglob("*.xml*"))
    assert len(files) >= 40
    for path in files:
        made, reader, text = read(path)
        report = reader.report
        text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
        single = re.findall(r"<r\b[^>]*?(?:/>|>([^<]*)</r>)", text)
        listed = [
            part for body in re.findall(r"<measResults>([^<]*)<", text) for part in body.split()
        ]
        assert len(made) == len(re.findall(r"<measValue\b", text)), path
        stated = [one for one in [*single, *listed] if one.strip()]
        taken = sum(len(one.values) for one in made)
        assert taken == report.results
        lost = report.not_numbers + report.lists + report.misaligned
        nil = len([one for one in stated if one.strip().lower() in ("nil", "null", "nan")])
        twice = len(stated) - nil - taken - lost
        # A place stated twice in a test file of the mapper.
        assert twice in (0, 1, 2), (
            path,
            twice,
        )


@pytest.mark.parametrize("standard", ["28.532", "32.435"])
@pytest.mark.parametrize(("form", "values"), [
    ("meas_results", {"a": 76.0, "b": 27.0, "c": 98.0}),
    ("meas_type_and_r", {"a": 86.0, "b": 67.0, "c": 14.0}),
])  # fmt: skip
def test_both_standards_and_both_forms(
    shared: Path, standard: str, form: str, values: dict[str, float]
) -> None:
    """The ONAP mapper's own cases."""
    (one,), _, _ = read(shared / "captures/pm_xml" / MAPPER / standard / form / "test.xml")
    assert (one.values, one.seconds, one.suspect) == (values, 900.0, False)
    assert one.begin_ns == 1_538_481_600 * 10**9


def test_a_node_of_125_objects(shared: Path) -> None:
    """The file and its packed twin (a later edition); histograms are counted, not guessed."""
    folder = shared / "captures/pm_xml/oran-ranpm"
    made, reader, _ = read(folder / "docker-proj/ne-files/pm.xml")
    assert (len(made), reader.report.results, reader.report.misaligned) == (125, 2231, 0)
    assert (reader.report.missing, reader.report.lists, reader.report.not_numbers) == (27, 409, 0)
    assert {one.seconds for one in made} == {900.0}
    assert all(one.dn.startswith("SubNetwork=G3,nodedntest,") for one in made)
    packed, other, _ = read(folder / "install/helm/ran/pm-files/pm.xml.gz")
    assert (len(packed), other.report.results) == (125, 2235)


def test_names_with_blanks_are_not_guessed(shared: Path) -> None:
    """`MM. AbortedGprsAttach`: five names, four results, all four left out; the third info is whole."""
    made, reader, _ = read(shared / "captures/pm_xml/oran-sim-o1/pm_files/pm-bulk-a3.xml")
    assert made[0].values == {}
    assert made[2].values == {"MM.AttPsPagingProcIu": 25.0, "MM.SuccPsPagingProcIu": 25.0}
    assert reader.report.misaligned == 4
