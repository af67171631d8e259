"""The command action: what may stand in an argument, limits, dry run, time-out, undoing what was done."""

import json
import os
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from alerting.actions.command import TooLongError, run
from alerting.config import SinkSettings
from alerting.sinks import RefusedError, make_sink
from alerting.words.alert import Alert, within
from telemetry.errors import ConfigError, TransientError
from tests.unit.alerting.test_causes import cut
from tocsin.testing import checks_sink
from tocsin.testing.alarms import AlarmWorld
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


@pytest.mark.parametrize(("before", "after"), [("", "west."), ("west.", "")])
def test_the_end_undoes_what_was_done_whatever_realm_the_sink_has_by_then(
    tmp_path: Path, before: str, after: str
) -> None:
    words = (*WRITE, str(tmp_path / "out"))
    for realm, one in ((before, alert()), (after, cleared())):
        options = {"run": (*words, "add"), "undo": (*words, "del")}
        settings = SinkSettings(
            kind="command", path=str(tmp_path / "force.json"), realm=realm, options=options
        )
        make_sink(settings).send([parcel(within(realm, one))], now_ns=NOW_NS)
    assert lines(tmp_path) == ["add", "del"]


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


def test_a_change_in_between_runs_nothing(tmp_path: Path) -> None:
    sink = action(tmp_path, *WRITE, str(tmp_path / "out"), "add", "${host}")
    for state in ("raised", "updated", "updated"):
        said = sink.send([parcel(alert(state=state))], now_ns=NOW_NS)
    assert lines(tmp_path) == ["add 198.51.100.7"]
    assert said.startswith("is in force: ")


def test_a_dry_run_begins_nothing_and_what_is_in_force_is_undone_all_the_same(
    tmp_path: Path,
) -> None:
    out = str(tmp_path / "out")
    made = {"undo": (*WRITE, out, "del", "${host}"), "in_force_max": 1}
    real = action(tmp_path, *WRITE, out, "add", "${host}", **made)
    dry = action(tmp_path, *WRITE, out, "add", "${host}", **made, dry_run=True)
    real.send([parcel(cleared())], now_ns=NOW_NS)
    real.send([parcel(alert())], now_ns=NOW_NS)
    for name in ("a", "b"):  # a dry run takes no place either
        assert dry.send([parcel(alert(id=name))], now_ns=NOW_NS).startswith("dry run, would run: ")
    dry.send([parcel(cleared())], now_ns=NOW_NS)
    assert lines(tmp_path) == ["add 198.51.100.7", "del 198.51.100.7"]
    over = msgspec.structs.replace(cleared(), id="a")
    assert " del " in dry.send([parcel(over)], now_ns=NOW_NS)
    assert len(lines(tmp_path)) == 2
    real.send([parcel(alert(id="b", state="updated"))], now_ns=NOW_NS)  # no dry run any more
    assert lines(tmp_path)[2:] == ["add 198.51.100.7"]


@pytest.mark.parametrize(("text", "host", "entity", "said"), [
    pytest.param("${host}/24", "198.51.100.7", "x", "more than one host", id="wider-than-a-host"),
    pytest.param("${host}/32", "2001:db8::7", "x", "more than one host", id="ipv6-by-a-template-of-ipv4"),
    pytest.param("to=${entity}", "", "198.51.100.0/24", "more than one host", id="a-prefix-by-another-field"),
    pytest.param("${entity}", "", "192.0.2.0/32", "in none of options.allowed", id="elsewhere-by-another-field"),
    pytest.param("${host}", "198.51.100.53", "x", "of options.protected", id="protected"),
    pytest.param("${host}", "::ffff:198.51.100.53", "x", "IPv4 written as IPv6", id="protected-as-ipv6"),
])  # fmt: skip
def test_what_is_acted_on_is_one_host_that_is_allowed_and_not_protected(
    tmp_path: Path, text: str, host: str, entity: str, said: str
) -> None:
    sink = action(
        tmp_path, *WRITE, str(tmp_path / "out"), text,
        allowed=["198.51.100.0/24", "2001:db8::/32", "::ffff:0:0/96"], protected=["198.51.100.52/31"],
    )  # fmt: skip
    with pytest.raises(RefusedError, match=said):
        sink.send([parcel(alert(host, entity=entity))], now_ns=NOW_NS)
    assert lines(tmp_path) == []


def test_a_prefix_is_acted_on_where_that_is_let(tmp_path: Path) -> None:
    words = (*WRITE, str(tmp_path / "out"), "${entity}")
    sink = action(tmp_path, *words, prefixes=True, protected=["198.51.100.53/32"])
    with pytest.raises(RefusedError, match="touches"):
        sink.send([parcel(alert(entity="198.51.100.0/24"))], now_ns=NOW_NS)
    sink.send([parcel(alert(entity="198.51.100.128/25"))], now_ns=NOW_NS)
    assert lines(tmp_path) == ["198.51.100.128/25"]


def test_what_two_alarms_have_in_force_stays_until_both_are_over(tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    undo = (*WRITE, out, "del", "${host}")
    sink = action(tmp_path, *WRITE, out, "add", "${host}", undo=undo)
    for name in ("a", cleared().id):
        sink.send([parcel(alert(id=name))], now_ns=NOW_NS)
    assert sink.send([parcel(cleared())], now_ns=NOW_NS) == "it stays: in force for alarm a too"
    assert not [line for line in lines(tmp_path) if "del" in line]
    sink.send([parcel(msgspec.structs.replace(cleared(), id="a"))], now_ns=NOW_NS)
    assert lines(tmp_path)[-1] == "del 198.51.100.7"


def test_a_process_that_is_killed_while_it_acts_leaves_what_undoes_it(tmp_path: Path) -> None:
    """Killed between announcing and knowing of it: the end withdraws, in another process."""
    out = tmp_path / "out"
    kill = ("sh", "-c", f"echo add $0 >>{out}; kill -9 $PPID", "${host}")
    undo = ("sh", "-c", f"echo del $0 >>{out}", "${host}")
    script = (
        "from tests.unit.alerting.test_actions import *\n"
        f"action(Path({str(tmp_path)!r}), *{kill!r}, undo={undo!r}).send([parcel(alert())], now_ns=1)"
    )
    ended = subprocess.run([sys.executable, "-c", script], check=False, env=dict(os.environ))
    assert ended.returncode == -9
    assert lines(tmp_path) == ["add 198.51.100.7"]
    action(tmp_path, "true").send([parcel(cleared())], now_ns=NOW_NS)
    assert lines(tmp_path) == ["add 198.51.100.7", "del 198.51.100.7"]


def test_a_raise_behind_an_end_that_failed_undoes_first(tmp_path: Path) -> None:
    out, gate = tmp_path / "out", tmp_path / "gate"
    undo = ("sh", "-c", f"echo del $0 >>{out}; test -e {gate}", "${host}")
    sink = action(tmp_path, *WRITE, str(out), "add", "${host}", undo=undo)
    sink.send([parcel(alert())], now_ns=NOW_NS)
    with pytest.raises(TransientError):
        sink.send([parcel(cleared())], now_ns=NOW_NS)
    gate.touch()
    sink.send([parcel(alert("198.51.100.8"))], now_ns=NOW_NS)
    done = ["add 198.51.100.7", "del 198.51.100.7", "del 198.51.100.7", "add 198.51.100.8"]
    assert lines(tmp_path) == done


def test_the_answer_names_what_was_run_and_what_it_said(tmp_path: Path) -> None:
    said = action(tmp_path, "echo", "on\x1b[31m", "${host}").send([parcel(alert())], now_ns=NOW_NS)
    assert said == "done: echo 'on\x1b[31m' 198.51.100.7: on\ufffd[31m 198.51.100.7"


def test_of_endless_output_the_first_is_kept(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = run(("head", "-c", "300000000", "/dev/zero"), seconds=60.0, output_bytes_max=1000)
    assert len(text) == 1000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_what_a_program_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    begun = time.monotonic()
    assert run(("sh", "-c", "sleep 30 & echo ok"), seconds=20.0) == "ok"
    with pytest.raises(TooLongError) as raised:
        run(("sh", "-c", "setsid sleep 30 & echo part; sleep 30"), seconds=0.5)
    assert raised.value.output == "part"
    assert time.monotonic() - begun < 10


SSH = """#!/bin/sh
for last; do :; done
case "$*" in *192.0.2.9*) exit 255;; esac
case "$last" in slow) echo part; sleep 30;; bad) exit 3;; *) echo "$*"; head -c 100000 /dev/zero | tr "\\\\0" x;; esac
"""


def bundle(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *commands: str, **hosts: str
) -> tuple[str, dict[str, str], dict[str, Any]]:
    """Fetch a bundle of a cut link from a stand-in of ssh; return what is said, its answers, its manifest."""
    folder.mkdir(exist_ok=True)
    (folder / "ssh").write_text(SSH)
    (folder / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    world = AlarmWorld()
    (cut_off,) = world.tick(cut(world))
    sink = make_sink(
        SinkSettings(
            kind="diagnostics", path=str(folder / "bundles"), timeout_seconds=1.0,
            options={"commands": commands, "login": "me", "key_file": "k", "known_hosts": "h", "hosts": hosts},
        )
    )  # fmt: skip
    said = sink.send([parcel(cut_off)], now_ns=NOW_NS)
    (path,) = (folder / "bundles").glob("*.zip")
    with zipfile.ZipFile(path) as file:
        assert sum(one.compress_size for one in file.infolist()) < 10_000
        texts = {name: file.read(name).decode() for name in file.namelist()}
    return said, texts, json.loads(texts["manifest.json"])


def test_both_ends_of_a_link_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, texts, manifest = bundle(
        tmp_path, monkeypatch, "show", ams1="192.0.2.1", fra2="192.0.2.2"
    )
    assert manifest["hosts"] == {"ams1": "192.0.2.1", "fra2": "192.0.2.2"}
    assert "2 answers of ams1, fra2" in said
    assert "192.0.2.2 -- show" in texts["fra2-01.txt"]
    for option in (
        "StrictHostKeyChecking=yes",
        "UserKnownHostsFile=h",
        "GlobalKnownHostsFile=none",
    ):
        assert option in texts["ams1-01.txt"]


def test_what_answers_is_kept_beside_what_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, texts, manifest = bundle(
        tmp_path, monkeypatch, "slow", "bad", "show", ams1="192.0.2.1", fra2="192.0.2.9"
    )
    assert texts["ams1-01.txt"] == "$ slow\n\npart\n"
    assert "ams1-02.txt" not in texts
    assert "ams1-03.txt" in texts
    assert [text.split(":")[0] for text in manifest["failed"]] == ["ams1", "ams1", "fra2"]
    assert "2 answers of ams1, fra2; failed: " in said
    with pytest.raises(TransientError, match="ended with 255"):
        bundle(tmp_path / "none", monkeypatch, "show", ams1="192.0.2.9")
