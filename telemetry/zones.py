"""Time zones by name."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from telemetry.errors import ConfigError


def zone_of(name: str) -> tzinfo:
    """Return a time zone, or raise ConfigError for a name that is none."""
    if name == "UTC":  # also where there is no database of zones
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:  # OSError: "Europe" is a folder of zones
        raise ConfigError(
            f"{name[:40]!r} is no time zone; write UTC or a name such as Europe/Vienna"
        ) from error
