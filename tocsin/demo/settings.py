"""The demo's configuration: deploy/demo/demo.toml, with ports moved where they are busy."""

import socket
from pathlib import Path

from tocsin.config import Config, load_config

FOLDER = Path(__file__).parents[2] / "deploy" / "demo"


def demo_config() -> Config:
    """Return the demo's configuration as it is shipped."""
    return load_config(FOLDER / "demo.toml", {"network.map": str(FOLDER / "network.toml")})


def free_port(wanted: int, kind: socket.SocketKind, host: str = "127.0.0.1") -> int:
    """Return `wanted`, or the next port that is free."""
    for port in range(wanted, wanted + 200):
        with socket.socket(socket.AF_INET, kind) as sock:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port))
            except OSError:
                continue
            return port
    return wanted
