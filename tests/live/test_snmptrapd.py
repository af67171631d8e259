"""Net-SNMP's snmptrapd takes our traps and informs, v2c and v3, and reads the alarm in them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from alerting.config import SinkSettings
from alerting.sinks import make_sink
from telemetry.errors import TransientError
from tests.support import processes
from tests.support.bad_peers import free_port
from tocsin.testing import checks_sink
from tocsin.testing.checks_sink import parcel

pytestmark = pytest.mark.live
ENGINE = "80004fb805746f6373696e"
CONFIG = f"""
authCommunity log,execute,net s3cret
createUser noc SHA-256 "authentication" AES "privacy-words"
createUser -e 0x{ENGINE} noc SHA-256 "authentication" AES "privacy-words"
authUser log,execute,net noc priv
"""


class Trapd:
    """snmptrapd on loopback that writes each notification as numbers to a file."""

    def __init__(self, folder: Path) -> None:
        import socket

        self.port = free_port(socket.SOCK_DGRAM)
        (folder / "snmptrapd.conf").write_text(CONFIG)
        self._log = folder / "log"
        with self._log.open("wb") as log:
            self._process = processes.start(
                ["snmptrapd", "-f", "-n", "-Lo", "-On", "-C", "-c", str(folder / "snmptrapd.conf"),
                 "-m", "", "-M", str(folder), f"127.0.0.1:{self.port}"],
                stdout=log, stderr=log, env={"PATH": "/usr/sbin:/usr/bin", "SNMP_PERSISTENT_DIR": str(folder)},
            )  # fmt: skip
        self.until("NET-SNMP version")

    def until(self, text: str) -> str:
        end = time.monotonic() + 20
        while time.monotonic() < end:
            found = self._log.read_text(errors="replace")
            if text in found:
                return found
            time.sleep(0.02)
        raise AssertionError(f"{text!r} is not in: {self._log.read_text(errors='replace')[-2000:]}")

    def stop(self) -> None:
        processes.stop(self._process)


@pytest.mark.parametrize("notify", ["inform", "trap"])
@pytest.mark.parametrize("version", ["2c", "3"])
def test_snmptrapd_reads_the_alarm(
    tmp_path: Path, needs: Callable[..., None], version: str, notify: str
) -> None:
    needs("snmptrapd")
    raised, _, cleared = checks_sink.alerts()
    for name, text in (
        ("community", "s3cret"),
        ("auth", "authentication"),
        ("priv", "privacy-words"),
    ):
        (tmp_path / name).write_text(text + "\n")
    trapd = Trapd(tmp_path)
    more: dict[str, Any] = {"token_file": str(tmp_path / "community")}
    options: dict[str, Any] = {"version": version, "notify": notify, "engine_id": ENGINE}
    if version == "3":
        more = {"user": "noc", "password_file": str(tmp_path / "auth")}
        options["privacy_file"] = str(tmp_path / "priv")
    settings = SinkSettings(
        kind="snmp", url=f"udp://127.0.0.1:{trapd.port}", options=options, **more
    )
    now_ns = time.time_ns()
    sink = make_sink(settings)
    try:
        said = sink.send([parcel(raised), parcel(cleared)], now_ns=now_ns)
        assert said.startswith("acknowledged" if notify == "inform" else "sent; traps")
        text = trapd.until(".1.3.6.1.6.3.1.1.4.1.0 = OID: .1.3.6.1.2.1.118.0.3")  # alarmClearState
        assert ".1.3.6.1.6.3.1.1.4.1.0 = OID: .1.3.6.1.2.1.118.0.2" in text  # alarmActiveState
        # ituAlarmPerceivedSeverity of the raise: major is 4 in ITU-ALARM-TC-MIB, state 5 of the model.
        assert ".1.3.6.1.2.1.121.1.1.1.1.1.0.1.5 = INTEGER: 4" in text
        assert ".1.3.6.1.2.1.121.1.1.1.1.1.0.1.1 = INTEGER: 1" in text  # and of the clear
        assert f'"{raised.title}"' in text
        assert f'"{raised.entity} {raised.kind} raised {raised.id}"' in text
    finally:
        sink.close()
        trapd.stop()


def test_a_wrong_password_is_told(tmp_path: Path, needs: Callable[..., None]) -> None:
    needs("snmptrapd")
    (tmp_path / "auth").write_text("not the password")
    trapd = Trapd(tmp_path)
    sink = make_sink(
        SinkSettings(
            kind="snmp", url=f"udp://127.0.0.1:{trapd.port}", user="noc", timeout_seconds=2.0,
            password_file=str(tmp_path / "auth"), options={"version": "3", "retries": 0},
        )
    )  # fmt: skip
    try:
        with pytest.raises(TransientError, match="wrong password_file or auth_protocol"):
            sink.send([parcel(checks_sink.alerts()[0])], now_ns=time.time_ns())
    finally:
        sink.close()
        trapd.stop()
