"""Every error Tocsin raises on purpose. The tree is the documentation:

TocsinError
├── ConfigError        the operator can fix it by editing a file; the node refuses to start
├── DecodeError        one message or file is malformed; count it, drop it, go on
├── TransientError     the world is briefly unavailable; retry with back-off, then give up
└── BugError           an invariant is broken; crash, restart, keep the evidence
"""


class TocsinError(Exception):
    """Base of every error raised on purpose. Catch this only at the edge of a process."""


class ConfigError(TocsinError):
    """A setting is wrong. The message names the key, the value, the rule and the remedy."""


class DecodeError(TocsinError):
    """A message from the network does not follow its standard. Never fatal, always counted."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason  # short and of a closed set: it becomes a metric label


class TransientError(TocsinError):
    """A peer or a disk did not answer in time. The caller decides whether to retry."""


class BugError(TocsinError):
    """Our own promise is broken. Nobody handles this; the supervisor restarts the stage."""
