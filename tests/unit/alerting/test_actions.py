"""The command action: what may stand in an argument, limits, dry run, time-out, undoing what was done."""

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.config import SinkSettings
from alerting.sinks import RefusedError, make_sink
from alerting.words.alert import Alert
from telemetry.errors import ConfigError, TransientError
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import NOW_NS, parcel

WRITE = (
    sys.executable,
    "-c",
    "import sys; open(sys.argv[1], 'a').write(' '.join(sys.argv[2:]) + '\\n')",
)


def alert(host: str = "198.51.100.7", **fields: Any) -> Alert:
    made = checks_sink.alerts()[0]
    told = {**made.explain, "top_talkers": [{"destination": host, "source": "203.0.113.1", "protocol": 17,
                                             "source_port": 53, "destination_port": 4000}]}  # fmt: skip
    return msgspec.structs.replace(made, explain=told, **fields)


def cleared() -> Alert:
    made = checks_sink.alerts()[2]
    told = {**made.explain, "top_talkers": [{"destination": "198.51.100.99"}]}
    return msgspec.structs.replace(made, explain=told)


def action(
    folder: Path, *words: str, undo: tuple[str, ...] = (), seconds: float = 10.0, **more: Any
) -> Any:
    return make_sink(
        SinkSettings(
            kind="command", path=str(folder / "force.json"), timeout_seconds=seconds,
            options={"run": words, "undo": undo, "allowed": ["198.51.100.0/24"], **more},
        )
    )  # fmt: skip


def lines(folder: Path) -> list[str]:
    path = folder / "out"
    return path.read_text().splitlines() if path.exists() else []


def test_the_end_undoes_what_was_done_whatever_the_alarm_says_by_then(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    words = (*WRITE, out, "add", "${host}", "${protocol}", "${source_port}")
    undo = (*WRITE, out, "del", "${host}")
    action(tmp_path, *words, undo=undo).send([parcel(alert())], now_ns=NOW_NS)
    action(tmp_path, *words, undo=undo).send([parcel(cleared())], now_ns=NOW_NS)
    assert lines(tmp_path) == ["add 198.51.100.7 17 53", "del 198.51.100.7"]
    assert json.loads((tmp_path / "force.json").read_text()) == {}


def test_an_end_whose_undoing_fails_is_tried_again(tmp_path: Path) -> None:
    action(tmp_path, *WRITE, str(tmp_path / "out"), "add", undo=("false",)).send(
        [parcel(alert())], now_ns=NOW_NS
    )
    with pytest.raises(TransientError, match="false ended with 1"):
        action(tmp_path, "true", undo=("true",)).send([parcel(cleared())], now_ns=NOW_NS)
    assert list(json.loads((tmp_path / "force.json").read_text())) == [cleared().id]


@pytest.mark.parametrize("host", ["192.0.2.1", "198.51.100.7/0", "", "::1", "198.51.100.7; reboot"])
def test_an_address_outside_of_what_is_allowed_runs_nothing(tmp_path: Path, host: str) -> None:
    with pytest.raises(RefusedError):
        action(tmp_path, *WRITE, str(tmp_path / "out"), "${host}").send(
            [parcel(alert(host))], now_ns=NOW_NS
        )
    assert lines(tmp_path) == []


@pytest.mark.parametrize("text", ["$(reboot)", "-rf", "a b", "a\nb", "", "'; reboot", "ё"])
def test_what_is_no_plain_word_runs_nothing(tmp_path: Path, text: str) -> None:
    sink = action(tmp_path, *WRITE, str(tmp_path / "out"), "x-${entity}")
    with pytest.raises(RefusedError, match="is not a plain word"):
        sink.send([parcel(alert(entity=text))], now_ns=NOW_NS)
    assert lines(tmp_path) == []


def test_no_more_than_so_many_are_in_force(tmp_path: Path) -> None:
    sink = action(tmp_path, "true", in_force_max=2)
    for number in ("a", "b"):
        sink.send([parcel(alert(id=number))], now_ns=NOW_NS)
    with pytest.raises(RefusedError, match="in_force_max"):
        sink.send([parcel(alert(id="c"))], now_ns=NOW_NS)
    sink.send([parcel(alert(id="a"), 2)], now_ns=NOW_NS)  # a repeat is no more


def test_a_dry_run_says_what_it_would_run(tmp_path: Path) -> None:
    sink = action(
        tmp_path, "vtysh", "-c", "ip route ${host}/32 blackhole", undo=("vtysh",), dry_run=True
    )
    said = sink.send([parcel(alert())], now_ns=NOW_NS)
    assert said == "dry run, would run: vtysh -c 'ip route 198.51.100.7/32 blackhole'"


def test_a_program_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    sink = action(tmp_path, "sh", "-c", "sleep 60 & sleep 60", seconds=0.2)
    with pytest.raises(TransientError, match=r"did not end within 0\.2 s"):
        sink.send([parcel(alert())], now_ns=NOW_NS)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransientError, match="No such file"):
        action(tmp_path, str(tmp_path / "no-such-program")).send([parcel(alert())], now_ns=NOW_NS)


def test_a_record_that_cannot_be_read_stops_everything(tmp_path: Path) -> None:
    (tmp_path / "force.json").write_text("{")
    with pytest.raises(TransientError, match="nothing is done without it"):
        action(tmp_path, "true").send([parcel(alert())], now_ns=NOW_NS)


@pytest.mark.parametrize("options", [
    {"run": []}, {"run": ["x", "${nothing}"]}, {"run": ["x"], "allowed": ["198.51.100.1/24"]},
])  # fmt: skip
def test_settings_that_are_wrong(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        make_sink(SinkSettings(kind="command", path=str(tmp_path / "x"), options=options))
