"""Who may enter: holders of a token; without tokens, programs of this machine."""

import base64
import hmac
from dataclasses import dataclass
from pathlib import Path

from telemetry.errors import ConfigError

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Access:
    """The rule of one listening address."""

    tokens: frozenset[str] = frozenset()

    def allows(self, host: str, given: str) -> bool:
        """Return whether a request for `host` (its Host header, no port) with this token may enter.

        Without tokens we listen on loopback only, and answer only under its own names: a page in the
        operator's browser must not read us under a name that its author points at 127.0.0.1.
        """
        if not self.tokens:
            return host.strip("[]") in LOOPBACK_HOSTS
        return any(hmac.compare_digest(given.encode(), token.encode()) for token in self.tokens)


def token_of(authorization: str, *, basic: bool = False) -> str:
    """Return the token of a header: a bearer's, or where `basic` is allowed the password of a browser's user."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    if basic and scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except ValueError:
            return ""
    return ""


def load_access(token_file: str) -> Access:
    """Return the rule for a file of tokens, one a line, `#` for comments; "" = no tokens."""
    if not token_file:
        return Access()
    try:
        lines = Path(token_file).read_text("utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"api.token_file {token_file}: {error.strerror}. The desk is not up until that is mended."
        ) from error
    tokens = frozenset(
        line.strip() for line in lines if line.strip() and not line.strip().startswith("#")
    )
    short = [token for token in tokens if len(token) < 16]
    if not tokens or short:
        raise ConfigError(
            f"api.token_file {token_file}: must hold at least one token of 16 characters or more, "
            f"one a line (for example from `openssl rand -hex 24`). The desk is not up until that is mended."
        )
    return Access(tokens)
