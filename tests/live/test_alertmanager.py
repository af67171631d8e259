"""A real Alertmanager shows our alert, keeps it up while it is, and drops it when it clears."""

import json
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alerting.config import AlertingSettings, SinkSettings
from alerting.courier import Courier
from alerting.outbox.outbox import Outbox
from alerting.words.alerts import alerts_of
from runtime.clock import SystemClock
from runtime.component import Context
from tests.support import processes
from tocsin.testing import make_context
from tocsin.testing.alarms import AlarmWorld

pytestmark = pytest.mark.live
CONFIG = """
route: {receiver: nobody, group_wait: 1s, group_interval: 1s}
receivers: [{name: nobody}]
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(done: Callable[[], Any], *, seconds: float = 30.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if found := done():
                return found
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


class Alertmanager:
    """Debian's prometheus-alertmanager on loopback, without its cluster port."""

    def __init__(self, folder: Path) -> None:
        config = folder / "alertmanager.yml"
        config.write_text(CONFIG)
        self.url = f"http://127.0.0.1:{free_port()}"
        self._folder = folder
        self.start()

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self.process = processes.start(
                [
                    "prometheus-alertmanager", "--cluster.listen-address=",
                    f"--config.file={self._folder}/alertmanager.yml",
                    f"--storage.path={self._folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        until(lambda: urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).status == 200)

    def stop(self) -> None:
        processes.stop(self.process)

    def alerts(self) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?active=true", timeout=5) as answer:
            made = json.load(answer)
        assert isinstance(made, list)
        return made


@pytest.fixture
def alertmanager(tmp_path: Path, needs: Callable[..., None]) -> Iterator[Alertmanager]:
    needs("prometheus-alertmanager")
    made = Alertmanager(tmp_path)
    yield made
    made.stop()


def test_alertmanager_shows_the_alert_also_after_its_restart_and_drops_it_when_it_clears(
    alertmanager: Alertmanager, tmp_path: Path
) -> None:
    made = make_context("outbox")
    context = Context(made.name, SystemClock(), made.metrics, made.log, made.seed)
    clock = context.clock
    settings = AlertingSettings(
        sinks={"am": SinkSettings(kind="alertmanager", url=alertmanager.url, send="alarms")}
    )
    outbox = Outbox(tmp_path / "node.sqlite", settings, context)
    outbox.start()

    def active(sink: str) -> list[Any]:
        import msgspec

        from alerting.words.alert import Alert

        return [msgspec.json.decode(body, type=Alert) for body in outbox.told(sink)]

    courier = Courier(
        settings.sinks, context, fetch=lambda limit: outbox.due(clock.now_ns(), limit),
        report=lambda verdicts: outbox.mark(verdicts, clock.now_ns()), active=active,
    )  # fmt: skip
    tick_ns = 5_000_000_000
    world = AlarmWorld(now_ns=clock.now_ns() // tick_ns * tick_ns - 10 * tick_ns)

    def commit(rows: list[dict[str, Any]]) -> None:
        batches = world.batches(rows)
        alarms = [b for b in batches if b.schema.name == "alarm"]
        assert sum(len(alerts_of(b)) for b in alarms) in (0, 1)
        outbox.commit(world.now_ns, alarms, clock.now_ns())

    def shown() -> list[dict[str, Any]]:
        courier.step()
        return alertmanager.alerts()

    try:
        commit([world.silence(s) for s in world.ends("ams1-fra2")])
        (alert,) = until(shown)
        assert alert["labels"]["alertname"] == "link-cut"
        assert alert["labels"]["entity"] == "ams1-fra2"
        assert alert["labels"]["severity"] == "critical"
        assert alert["annotations"]["summary"] == "link ams1-fra2 is down"
        assert alert["status"]["state"] == "active"

        # It keeps alerts in memory only: after a restart it knows nothing until told again.
        alertmanager.stop()
        alertmanager.start()
        assert alertmanager.alerts() == []
        for lane in courier._lanes.values():  # instead of waiting a minute
            lane.repeat_due_ns = 0
        (again,) = until(shown)
        assert again["fingerprint"] == alert["fingerprint"]

        for _ in range(3):
            commit([])
        until(lambda: not shown())
        assert outbox.health() == ""
    finally:
        courier.stop()
        outbox.stop()
