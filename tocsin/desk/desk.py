"""The desk process: history, REST API, SQL door, console. The only process that opens the database.

It tails the node's journal with a cursor of its own and asks the node over its request socket. Its
death stops neither collecting nor alerting; when it comes back, it goes on where its cursor stands.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path

from history.feeder import HistoryFeeder
from history.flow_loader import FlowLoader
from history.retention import Retention
from history.store import Connection
from history.writer import HistoryWriter
from runtime import logs
from runtime.clock import Clock, SteadyClock
from runtime.component import Context
from runtime.metrics import Metrics
from runtime.parent import end_with_parent
from runtime.supervisor import Role, Supervisor
from telemetry.errors import ConfigError, TransientError
from tocsin import verbs
from tocsin.api.access import load_access
from tocsin.api.app import Services, api
from tocsin.api.feed import AlertFeed
from tocsin.api.node_client import NodeClient
from tocsin.api.serving import Server
from tocsin.api.sql_door import sql_door
from tocsin.api.workers import Workers
from tocsin.config import Config, load_config
from tocsin.desk.ask import ADDRESS_FILE
from tocsin.desk.store import open_store
from tocsin.state import state_dir

API_THREADS = 2
DOOR_THREADS = 2
TEACH_SECONDS = 5.0  # between looks for new verdicts, while there is no teacher


class Desk:
    """One running desk. Read `run` from top to bottom: that is the order in which it comes up."""

    def __init__(
        self, config: Config, state: Path, clock: Clock, *, path: Path | None = None
    ) -> None:
        """`path` is the configuration file, for the teacher."""
        self._config = config
        self._path = path
        self._state = state
        self._clock = clock
        self.metrics = Metrics("desk")
        self._store = open_store(config.history, state)
        self._servers: list[Server] = []

    def _context(self, name: str) -> Context:
        seed = (self._config.node.seed, *name.encode())
        return Context(name, self._clock, self.metrics.scoped(name), logs.child(name), seed)

    def _reader(self) -> Connection:
        settings = self._config.history
        return self._store.connect(
            read_only=True,
            seconds_max=settings.query_seconds_max,
            rows_max=settings.query_rows_max,
        )

    async def run(self) -> None:
        """Serve until asked to stop. Raises ConfigError where something cannot be opened."""
        settings, log = self._config.api, logs.child("desk")
        access = load_access(settings.token_file)
        with contextlib.ExitStack() as undo:
            # 1. Ports first: a busy one is said before anything is written.
            api_socket = undo.enter_context(_bound("api.listen", settings.listen))
            door_socket = (
                undo.enter_context(_bound("api.sql_listen", settings.sql_listen))
                if settings.sql_listen
                else None
            )
            # 2. The store, and who fills it.
            connection = self._store.connect()
            undo.callback(connection.close)
            context = self._context("history")
            retention = Retention(connection, self._config.history)
            # Also what is left of them.
            flows = FlowLoader(self._state / "flows", connection, context)
            feeder = HistoryFeeder(
                self._state,
                partial(HistoryWriter, connection, context),
                retention,
                context,
                flows=flows,
            )
            feeder.start()
            undo.callback(feeder.stop)
            # 3. Who may ask.
            api_workers = Workers(self._reader, threads=API_THREADS)
            undo.callback(api_workers.stop)
            door_workers = Workers(self._reader, threads=DOOR_THREADS)
            undo.callback(door_workers.stop)
            node = NodeClient(f"ipc://{self._state}/node.sock")
            undo.callback(node.stop)
            feed = AlertFeed(f"ipc://{self._state}/frames.sock", self._context("feed"))
            services = Services(
                self._context("api"), access, node, api_workers, feed, feeder, self.metrics,
                self._config.alerting,
            )  # fmt: skip
            self._servers.append(Server(api(services), api_socket))
            if door_socket is not None:
                door = sql_door(
                    door_workers, self._context("sql"), database=self._store.database, access=access
                )
                self._servers.append(Server(door, door_socket))
            # 4. Serve.
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._ask_to_stop)
            if os.getppid() != 1:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides
            address = self._state / ADDRESS_FILE
            address.write_text(settings.listen, "ascii")
            undo.callback(address.unlink, missing_ok=True)
            listening = asyncio.create_task(feed.run())
            teaching = asyncio.create_task(self._teach(node))
            log.info("desk_ready api=%s sql=%s", settings.listen, settings.sql_listen)
            await asyncio.gather(*(server.serve_socket() for server in self._servers))
            for task in (listening, teaching):
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def _teach(self, node: NodeClient) -> None:
        """Run a teacher while there is something to learn; it takes 125 MB."""
        detection = self._config.detection
        stays = detection.drift or any(a.kind == "river" for a in detection.also.values())
        arguments = [str(self._path or ""), str(self._state)]
        command = [sys.executable, "-m", "tocsin.desk.teacher", *arguments]
        role = Role("teacher", command, ends=not stays, gives_up=True)
        children = Supervisor([role], self._context("teacher"))
        taught = 0
        try:
            while True:
                newest = 0 if stays else await _newest_verdict(node)
                if stays or newest > taught:
                    children.start()
                    while not role.gone:
                        await asyncio.sleep(1.0)
                        children.poll()
                    if stays:  # gone for good: its configuration is wrong, as it said
                        return
                    taught = newest
                await asyncio.sleep(TEACH_SECONDS)
        finally:
            children.stop()

    def _ask_to_stop(self) -> None:
        for server in self._servers:
            server.should_exit = True


async def _newest_verdict(node: NodeClient) -> int:
    """Return the number of the newest verdict of an operator, 0 where there is none or no node."""
    try:
        return await node.ask("newest_verdict", verbs.Nothing(), int)
    except TransientError:
        return 0


def _bound(key: str, listen: str) -> socket.socket:
    """Return a listening socket, or raise ConfigError naming the setting."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        made.close()
        raise ConfigError(
            f"{key} = {listen!r}: {_why(error, port)}. Without the desk there is no API, console, SQL or "
            f"history; it is started again and again by itself. Collecting and alerting go on."
        ) from error
    return made


def _why(error: Exception, port: str) -> str:
    if not isinstance(error, OSError):
        return f"{error}; choose a port"
    # Of the receiving half, which a desk that is well never needs.
    from collectors.listen.udp import fix_of

    return f"{error.strerror}: {fix_of(error, int(port), 'tcp')}"


def main() -> None:
    """`python -m tocsin.desk CONFIG STATE`: the desk until SIGTERM. Exit 2: configuration."""
    end_with_parent(signal.SIGTERM)
    path, state = (Path(argument) if argument else None for argument in sys.argv[1:3])
    clock = SteadyClock()
    try:
        config = load_config(path)
        desk = Desk(config, state_dir(state), clock, path=path)
        logs.set_up("desk", desk.metrics, clock, level=config.node.log_level)
        asyncio.run(desk.run())
    except ConfigError as error:
        sys.stderr.write(f"tocsin: {error}\n")
        sys.exit(2)
