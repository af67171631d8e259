"""A real Alertmanager tells us by webhook what fires and what is over; its list makes up for what we missed."""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from collectors.managers.alertmanager import AlertmanagerSource
from runtime.clock import SystemClock
from tests.support import processes
from tests.support.bad_peers import free_port
from tests.support.source_world import MemoryNode, source_of
from tocsin.testing import make_context

pytestmark = pytest.mark.live
CONFIG = """
route: {{receiver: tocsin, group_wait: 1s, group_interval: 1s, repeat_interval: 1h}}
receivers:
  - name: tocsin
    webhook_configs: [{{url: "http://127.0.0.1:{port}/", send_resolved: true}}]
"""


class Site:
    """Alertmanager, and a source that it tells."""

    def __init__(self, folder: Path) -> None:
        self.node = MemoryNode()
        self.url = f"http://127.0.0.1:{free_port()}"
        port = free_port()
        (folder / "alertmanager.yml").write_text(CONFIG.format(port=port))
        options = {"listen": f"http://127.0.0.1:{port}", "api": {"url": self.url}}
        context = make_context("am", clock=SystemClock())  # type: ignore[arg-type]
        made = source_of("alertmanager", options, self.node, context, folder / "state")
        self.source = cast(AlertmanagerSource, made)
        with (folder / "log").open("ab") as log:
            self.process = processes.start(
                [
                    "prometheus-alertmanager", "--cluster.listen-address=",
                    f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log, stderr=log,
            )  # fmt: skip
        self.until(lambda: urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).status == 200)

    def until(self, done: Callable[[], Any], *, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if done():
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"it did not happen in time: {self.node.alarms()}")

    def alert(self, *, over: bool = False, **labels: str) -> None:
        now = datetime.now(UTC)
        end = now if over else now + timedelta(hours=1)
        body = [{
            "labels": {"alertname": "LinkDown", "severity": "critical", **labels},
            "annotations": {"summary": "link is down"},
            "startsAt": (now - timedelta(minutes=1)).isoformat(), "endsAt": end.isoformat(),
        }]  # fmt: skip
        request = urllib.request.Request(
            f"{self.url}/api/v2/alerts",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=5).close()

    def close(self) -> None:
        self.source.stop()
        processes.stop(self.process)


@pytest.fixture
def site(tmp_path: Path, needs: Callable[..., None]) -> Iterator[Site]:
    needs("prometheus-alertmanager")
    made = Site(tmp_path)
    yield made
    made.close()


def test_what_fires_and_what_is_over(site: Site) -> None:
    site.source.start()
    site.alert(instance="ber-1:9100", ifName="xe-0/0/1")
    site.until(lambda: site.node.alarms() == [("ber-1:xe-0/0/1", "critical", "link is down")])
    site.source._resync_ns = 0
    site.source.turn()  # the list says the same: nothing new
    assert len(site.node.alarms()) == 1
    site.alert(instance="ber-1:9100", ifName="xe-0/0/1", over=True)
    site.until(lambda: not site.node.open_ids())
    assert len(site.node.alarms()) == 2


def test_the_list_tells_what_was_missed(site: Site) -> None:
    site.alert(node="ber-1")
    site.source._feed.load()
    site.until(lambda: site.source.turn() and site.node.open_ids())
    assert site.node.alarms() == [("ber-1", "critical", "link is down")]
