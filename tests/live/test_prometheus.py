"""A real Prometheus scrapes a running Tocsin, of both profiles, and has the numbers it should have."""

import json
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.live_node import CLOCK, feed, write_config
from tocsin.demo.settings import free_port

pytestmark = [pytest.mark.live, pytest.mark.slow]
SECOND = 1_000_000_000
SCRAPE = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: tocsin
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


@pytest.fixture(params=["sensor", "site"])
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """A Tocsin that receives flows; its metrics port."""
    folder = tmp_path_factory.mktemp("p")
    ports = (free_port(42355, socket.SOCK_DGRAM), free_port(46643, socket.SOCK_DGRAM))
    api = free_port(48670, socket.SOCK_STREAM)
    extra = f'\n[api]\nlisten = "127.0.0.1:{api}"\nmetrics_listen = "127.0.0.1:{api}"\nsql_listen = ""\n'
    config = write_config(folder, port=ports[0], sflow_port=ports[1], extra=extra)
    text = config.read_text("utf-8").replace('profile = "sensor"', f'profile = "{request.param}"')
    config.write_text(text, "utf-8")
    command = [
        sys.executable,
        "-m",
        "tocsin",
        "run",
        "-c",
        str(config),
        "--state",
        str(folder / "s"),
    ]
    process = processes.start(command, start_new_session=True)
    with processes.beside(feed, (), ports):
        yield api
        code = processes.stop(process, seconds=30.0)
    assert code == 0


@pytest.fixture
def prometheus(running: int, tmp_path: Path, needs: Callable[..., None]) -> Iterator[str]:
    """A Prometheus that scrapes it every second; its address."""
    needs("prometheus", "promtool")
    config = tmp_path / "prometheus.yml"
    config.write_text(SCRAPE.format(port=running), "utf-8")
    port = free_port(49090, socket.SOCK_STREAM)
    process = processes.start(
        ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
         f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"],
    )  # fmt: skip
    yield f"http://127.0.0.1:{port}"
    processes.stop(process)


def ask(address: str, query: str) -> list[dict[str, Any]]:
    url = f"{address}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except OSError:
        return []


def wait_for(address: str, query: str, least: float) -> float:
    """Return the sum of a query once it is at least so much."""
    value = -1.0
    for _ in range(90):
        rows = ask(address, query)
        value = sum(float(row["value"][1]) for row in rows) if rows else -1.0
        if value >= least:
            return value
        CLOCK.sleep(0.5)
    raise AssertionError(f"{query} is {value}, not {least} or more")


def test_prometheus_scrapes_it_and_the_numbers_grow_with_the_traffic(
    running: int, prometheus: str
) -> None:
    assert wait_for(prometheus, 'up{job="tocsin"}', 1.0) == 1.0
    records = "tocsin_collector_records_total"
    first = wait_for(prometheus, records, 1_000.0)
    assert wait_for(prometheus, records, first + 1_000.0) > first
    assert wait_for(prometheus, "tocsin_series_keys", 100.0) > 100.0
    assert wait_for(prometheus, f"rate({records}[10s])", 100.0) < 5_000.0  # 900 are sent a second
    with urllib.request.urlopen(f"http://127.0.0.1:{running}/metrics", timeout=5) as answer:
        text = answer.read()
    made = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr.decode() + made.stdout.decode()
