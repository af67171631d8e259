"""A real ClickHouse server of Debian's package on loopback, with a folder and ports of its own."""

import os
import socket
import subprocess
import time
from pathlib import Path

from history.config import ServerSettings
from tests.support import processes

PASSWORD = "pass 'word' \\ of the test"
LIMIT_SECONDS = 30.0
CONFIG = """<yandex>
 <logger><level>warning</level><console>1</console></logger>
 <tcp_port>{native}</tcp_port><http_port>{http}</http_port><listen_host>127.0.0.1</listen_host>
 <path>{folder}/data/</path><tmp_path>{folder}/tmp/</tmp_path>
 <users_config>users.xml</users_config><default_profile>default</default_profile>
 <default_database>default</default_database><timezone>UTC</timezone>
 <mark_cache_size>33554432</mark_cache_size>
</yandex>
"""
USERS = """<yandex><profiles><default></default></profiles><quotas><default></default></quotas>
<users><tocsin><password>{password}</password><networks><ip>127.0.0.1</ip></networks>
<profile>default</profile><quota>default</quota></tocsin></users></yandex>
"""


class ClickhouseServer:
    """One server process. It can be killed, and started again on what it had."""

    def __init__(self, folder: Path) -> None:
        self.native, self.http = free_ports(2)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        config = CONFIG.format(native=self.native, http=self.http, folder=folder)
        (folder / "config.xml").write_text(config)
        (folder / "users.xml").write_text(USERS.format(password=PASSWORD))
        self.password_file = folder / "password"
        self.password_file.write_text(f"{PASSWORD}\n")

    def add(self, more: str) -> None:
        """Add to its configuration, before it starts."""
        path = self._folder / "config.xml"
        path.write_text(path.read_text().replace("</yandex>", f"{more}</yandex>"))

    def start(self) -> None:
        """Start it and wait until both ports answer."""
        with (self._folder / "log").open("ab") as log:
            self._process = processes.start(
                ["clickhouse-server", f"--config-file={self._folder}/config.xml"],
                stdout=log, stderr=log, env={**os.environ, "TZ": "UTC"}, cwd=self._folder,
            )  # fmt: skip
        until = time.monotonic() + LIMIT_SECONDS
        for port in (self.native, self.http):
            while True:
                with socket.socket() as one:
                    if one.connect_ex(("127.0.0.1", port)) == 0:
                        break
                if self._process.poll() is not None or time.monotonic() > until:
                    raise AssertionError((self._folder / "log").read_text()[-2000:])
                time.sleep(0.02)

    def kill(self) -> None:
        """End it as a power cut of the process does."""
        assert self._process is not None
        processes.kill(self._process)

    def settings(self, database: str = "tocsin") -> ServerSettings:
        """Return the settings that name it."""
        return ServerSettings(
            servers=(f"127.0.0.1:{self.native}",),
            user="tocsin",
            password_file=str(self.password_file),
            database=database,
            http_port=self.http,
        )


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that are free now."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports
