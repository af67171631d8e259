"""Two real ClickHouse servers that are replicas of each other, killed by turns (DEEP=1: ZooKeeper, Java)."""

import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

import msgspec
import pytest

from history.server_store import ServerStore
from history.writer import HistoryWriter
from telemetry.errors import TransientError
from tests.support import processes
from tests.support.clickhouse_server import PASSWORD, ClickhouseServer, free_ports
from tests.support.live_node import CLOCK
from tests.unit.history.test_writer import ROWS_PER_TICK, Store, check_rollups, feed, rows_of

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(600)]
KEEPER = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
MORE = """<zookeeper><node><host>127.0.0.1</host><port>{keeper}</port></node></zookeeper>
<macros><shard>1</shard><replica>{name}</replica></macros>
<distributed_ddl><path>/clickhouse/task_queue/ddl</path></distributed_ddl>
<interserver_http_host>127.0.0.1</interserver_http_host><interserver_http_port>{port}</interserver_http_port>
<remote_servers><noc><shard><internal_replication>true</internal_replication>{replicas}</shard></noc></remote_servers>
"""
REPLICA = """<replica><host>127.0.0.1</host><port>{port}</port><user>tocsin</user>
<password>{password}</password></replica>"""


@pytest.fixture
def replicas(
    tmp_path: Path, deep: bool, needs: Callable[..., None]
) -> Iterator[list[ClickhouseServer]]:
    """Two servers of one cluster, and the ZooKeeper through which they know of each other."""
    if not deep:
        pytest.skip("DEEP=1: two servers and a ZooKeeper, two minutes")
    needs("clickhouse-server", "java")
    keeper, *between = free_ports(3)
    (tmp_path / "zoo.cfg").write_text(
        f"dataDir={tmp_path}/zookeeper\nclientPort={keeper}\nclientPortAddress=127.0.0.1\n"
        "tickTime=1000\nadmin.enableServer=false\n"
    )
    java = shutil.which("java") or ""
    zookeeper = processes.start(
        [java, "-Xmx256m", "-cp", "/etc/zookeeper/conf_example:/usr/share/java/*", KEEPER, str(tmp_path / "zoo.cfg")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path,
    )  # fmt: skip
    while not listens(keeper):
        assert zookeeper.poll() is None
        CLOCK.sleep(0.2)
    servers = [ClickhouseServer(tmp_path / name) for name in "ab"]
    listed = "".join(REPLICA.format(port=one.native, password=escape(PASSWORD)) for one in servers)
    for server, name, port in zip(servers, "ab", between, strict=True):
        server.add(MORE.format(keeper=keeper, name=name, port=port, replicas=listed))
        server.start()
    yield servers
    for server in servers:
        server.kill()
    processes.kill(zookeeper)


def test_replicas_killed_by_turns_have_every_tick_once(replicas: list[ClickhouseServer]) -> None:
    first, second = replicas
    settings = msgspec.structs.replace(
        first.settings(),
        servers=(*first.settings().servers, *second.settings().servers),
        cluster="noc",
        answer_seconds=10.0,
    )
    store = Store(ServerStore(settings))
    writer = store.writer()
    feed(writer, range(40))
    writer.flush()
    wait_for(second, store)
    first.kill()
    feed(writer, range(40, 60))
    flush(writer)
    assert rows_of(store) == 60 * ROWS_PER_TICK
    check_rollups(store)

    # The first comes back and lacks what the second took meanwhile: it is not written to before it has it.
    first.start()
    second.kill()
    feed(writer, range(60, 70))
    with pytest.raises(TransientError, match=r"does not have yet what|does not answer"):
        writer.flush()
    second.start()
    flush(writer)
    assert rows_of(store) == 70 * ROWS_PER_TICK
    check_rollups(store)
    store.connection.close()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def flush(writer: HistoryWriter) -> None:
    """Flush as the feeder does: again and again."""
    for _ in range(30):
        try:
            writer.flush()
            return
        except TransientError:
            CLOCK.sleep(1.0)
    raise AssertionError("no server took it")


def wait_for(server: ClickhouseServer, store: Store) -> None:
    """Wait until a server has all that was written."""
    counts = "select (select count() from frames) as ticks, (select count() from rollups) as rolled"
    connection = ServerStore(server.settings()).connect()
    while connection.rows(counts) != store.connection.rows(counts):
        CLOCK.sleep(0.2)
    connection.close()
