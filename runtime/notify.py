"""Telling systemd how a service fares, by sd_notify(3): a datagram on $NOTIFY_SOCKET."""

import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send `READY=1`, `WATCHDOG=1`, `STATUS=...`; False where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        sock.sendto(state.encode(), address)
        return True
    return False
