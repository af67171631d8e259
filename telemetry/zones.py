"""Time zones by name, and by what devices and people write behind a time."""

from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo

from telemetry.errors import ConfigError

# Minutes ahead of UTC. IST, CST and BST mean several: the common one of networks.
ZONES = {
    "UTC": 0, "UT": 0, "GMT": 0, "Z": 0, "WET": 0, "WEST": 60, "BST": 60, "CET": 60, "MET": 60, "MEZ": 60,
    "CEST": 120, "MEST": 120, "MESZ": 120, "EET": 120, "EEST": 180, "SAST": 120, "MSK": 180,
    "TRT": 180, "AST": 180, "GST": 240, "PKT": 300, "IST": 330, "ICT": 420, "WIB": 420, "SGT": 480,
    "HKT": 480, "PHT": 480, "AWST": 480, "CST": -360, "JST": 540, "KST": 540, "ACST": 570,
    "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780, "BRT": -180, "ART": -180, "ADT": -180,
    "EST": -300, "EDT": -240, "CDT": -300, "MST": -420, "MDT": -360, "PST": -480, "PDT": -420,
    "AKST": -540, "HST": -600,
}  # fmt: skip


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
