"""Settings of the syslog collector, and the time zones of senders that state none."""

import contextlib
from datetime import UTC, datetime, timedelta, tzinfo
from ipaddress import ip_network
from typing import Annotated

import msgspec

from runtime.settings import PositiveInt, Settings
from telemetry.errors import ConfigError
from telemetry.zones import ZONES, zone_of

MessageBytes = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Rows = Annotated[int, msgspec.Meta(ge=1, le=1 << 22)]  # of tables that are there from the start


class SyslogOptions(Settings, frozen=True, kw_only=True):
    """Options of kind "syslog". `[collectors.<name>.options]`."""

    message_bytes_max: MessageBytes = 16_384  # what is beyond is left out and counted
    # A line end within a message of a stream does not end it unless `<` and a digit follow. The last
    # message of a burst then waits for the next, or a second.
    multi_line: bool = False
    lines_per_second_max: int = 50_000  # more are shed, debug first; alarms never; 0 = no limit
    hosts_max: Rows = 16_384  # who log; lines of more have no counts of their own
    words_max: Rows = 16_384  # programs and message ids
    patterns_max: Rows = 8192  # the least recently used give way
    variety: PositiveInt = 6  # so many lines that differ in one word are one pattern (3 to 8)
    series_max: Rows = 20_000  # counts of (host, severity) and (host, pattern)
    patterns_per_host_max: PositiveInt = 64  # counted apart; the rest as `__other__`
    # {"192.0.2.0/24": "+02:00", "198.51.100.0/24": "Europe/Vienna"}: of senders that state none.
    zones: dict[str, str] = {}


class Zones:
    """The time zone of senders that do not state theirs: by subnet, the most specific wins."""

    def __init__(self, zones: dict[str, str]) -> None:
        """Raise ConfigError for a subnet or zone that is none."""
        self._zones: list[tuple[int, int, int, int | tzinfo]] = []
        for subnet, zone in zones.items():
            try:
                network = ip_network(subnet, strict=False)
            except ValueError as error:
                raise ConfigError(f"options: zones: {subnet!r} is no subnet: {error}") from error
            low = int(network.network_address)
            bits = network.prefixlen
            if network.version == 4:
                low, bits = low | 0xFFFF << 32, bits + 96
            mask = ((1 << bits) - 1) << (128 - bits)
            self._zones.append((bits, low, mask, _zone(zone)))
        self._zones.sort(key=lambda one: -one[0])

    def minutes(self, high: int, low: int, arrival_ns: int) -> int:
        """Return how far ahead of UTC a sender's clock is."""
        address = high << 64 | low
        for _, network, mask, zone in self._zones:
            if address & mask == network:
                if isinstance(zone, int):
                    return zone
                offset = datetime.fromtimestamp(arrival_ns / 1e9, UTC).astimezone(zone).utcoffset()
                return int((offset or timedelta()).total_seconds()) // 60
        return 0

    def __bool__(self) -> bool:
        return bool(self._zones)


def _zone(text: str) -> int | tzinfo:
    sign = {"+": 1, "-": -1}.get(text[:1])
    if sign is not None:
        hours, _, minutes = text[1:].partition(":")
        if hours.isdigit() and (minutes or "0").isdigit() and int(hours) <= 14:
            return sign * (int(hours) * 60 + int(minutes or 0))
    elif text in ZONES:
        return ZONES[text]
    else:
        with contextlib.suppress(ConfigError):
            return zone_of(text)
    raise ConfigError(
        f"options: zones: {text!r} is no zone; write +02:00, UTC or a name such as Europe/Vienna"
    )
