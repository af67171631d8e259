"""What is told of a file of captured data besides what it holds."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class CaptureReport:
    """What a capture held besides datagrams, for people."""

    packets: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    undecoded: Counter[str] = field(default_factory=Counter)
    damage: str = ""
