"""E-mail: plain text with an HTML twin; what belongs to one alarm is one thread.

`url` is smtp://host:25, smtp+starttls://host:587 or smtps://host:465. The Message-ID is made of the
delivery's key, so that mail systems which look at it drop a repeat; others show it twice. Hence who has
had a mail is remembered, where others are to be tried again, and a mail that was handed over is waited for.

Source: RFC 5321 (4.5.3.2.6: ten minutes for the answer to a mail), RFC 5322 sections
3.6.4 (Message-ID, References), RFC 3834 section 5 (Auto-Submitted),
RFC 2369 is not used: this is no list.
"""

import io
import smtplib
from collections import OrderedDict
from collections.abc import Sequence
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate
from typing import Any
from urllib.parse import urlsplit

from alerting.config import SinkSettings
from alerting.sinks.hearing import Hearing
from alerting.sinks.http import request, secret, tls
from alerting.sinks.parcel import Parcel, RefusedError
from alerting.words.alert import Alert
from alerting.words.escape import ESCAPES, line
from alerting.words.wording import facts, story, verb
from runtime.registry import Part
from runtime.settings import Settings
from telemetry.errors import ConfigError, TransientError

PICTURE_SECONDS = 2.0
PICTURE_BYTES_MAX = 256 * 1024
PORTS = {"smtp": 25, "smtp+starttls": 587, "smtps": 465}
TAKEN_SECONDS = 600.0
HAD_MAX = 10_000
# The mail is what is wrong: 5yz of a recipient, the content, its size (RFC 5321 section 4.2.1).
REFUSED = (501, 550, 551, 552, 553, 554, 555)
TOO_LARGE = 552


class MailOptions(Settings, frozen=True, kw_only=True):
    """Who writes to whom."""

    sender: str  # address in From
    to: tuple[str, ...]  # who get it
    domain: str = "tocsin.invalid"  # right of the @ in Message-IDs
    pictures: str = ""  # the API's root, http://127.0.0.1:8470: mails then show the series
    pictures_token_file: str = ""  # a token of that API, where it wants one


class _Server(smtplib.SMTP):
    """SMTP whose answers are waited for so long in all, and that to a mail for long enough."""

    _hearing: Hearing | None = None
    _waits = 0.0  # beyond the timeout

    def getreply(self) -> tuple[int, bytes]:
        """Return an answer."""
        assert self.sock is not None
        seconds = max(self.timeout, self._waits)
        if self.file is None or self._hearing is None:
            self._hearing = Hearing(self.sock, seconds)
            self.file = io.BufferedReader(self._hearing)
        self._hearing.wait(seconds)
        return super().getreply()

    def data(self, msg: Any) -> tuple[int, bytes]:
        """Hand a mail over."""
        self._waits = TAKEN_SECONDS
        try:
            return super().data(msg)
        finally:
            self._waits = 0.0


class _TlsServer(_Server, smtplib.SMTP_SSL):
    """The same over TLS from the start."""


class MailSink:
    """One connection a send: mail is rare, and servers close what is idle."""

    batch_max = 20
    repeat_seconds = 0.0

    def __init__(self, settings: SinkSettings, options: MailOptions) -> None:
        parts = urlsplit(settings.url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ConfigError(f"url {settings.url!r} is none of {', '.join(PORTS)}://host:port")
        if not options.to:
            raise ConfigError("options.to names nobody; give at least one address")
        self._settings = settings
        self._options = options
        self._scheme = parts.scheme
        self._address = (parts.hostname, parts.port or PORTS[parts.scheme])
        self._had: OrderedDict[str, set[str]] = OrderedDict()  # by key: who has had that mail
        self._pictures = SinkSettings(
            kind="mail", token_file=options.pictures_token_file, ca_file=settings.ca_file,
            timeout_seconds=min(settings.timeout_seconds, PICTURE_SECONDS),
        )  # fmt: skip

    def send(self, parcels: Sequence[Parcel], *, now_ns: int) -> str:
        """Send a mail each over one connection. Raises where one has to be tried again for somebody, or
        nobody takes one; the others have had theirs."""
        failed: list[tuple[str, int, bytes]] = []
        try:
            with self._connect() as server:
                for parcel in parcels:
                    who = self._mail(server, parcel, now_ns)
                    failed += [(address, *said) for address, said in who.items()]
        except smtplib.SMTPDataError as error:
            raise _failure(error.smtp_code, error.smtp_error) from error
        except smtplib.SMTPResponseException as error:  # it refuses us rather than a mail
            code = error.smtp_code
            too_large = isinstance(error, smtplib.SMTPSenderRefused) and code == TOO_LARGE
            raise _failure(code, error.smtp_error, final=too_large) from error
        except (OSError, smtplib.SMTPException, ValueError) as error:
            raise TransientError(
                f"{self._settings.url}: {error or type(error).__name__}"
            ) from error
        failures = [_failure(code, text, of=address) for address, code, text in failed]
        for failure in failures:
            if not isinstance(failure, RefusedError):
                raise failure
        if failures and not all(self._had[parcel.key] for parcel in parcels):
            raise failures[0]
        return f"accepted, but {failures[0]}" if failures else "accepted"

    def _mail(
        self, server: smtplib.SMTP, parcel: Parcel, now_ns: int
    ) -> dict[str, tuple[int, bytes]]:
        """Send a mail to all who have not had it; return who does not get it, and why."""
        had = self._had.setdefault(parcel.key, set())
        self._had.move_to_end(parcel.key)
        while len(self._had) > HAD_MAX:
            self._had.popitem(last=False)
        to = [address for address in self._options.to if address not in had]
        if not to:
            return {}
        made = mail(parcel, self._options, now_ns=now_ns, picture=self._picture(parcel))
        try:
            failed = server.send_message(made, self._options.sender, to)
        except smtplib.SMTPRecipientsRefused as error:
            failed = error.recipients
        had |= set(to) - set(failed)
        return failed

    def _picture(self, parcel: Parcel) -> bytes:
        """Return the picture of an alarm, b"" where there is none: a mail never waits long for it."""
        alert = parcel.alert
        if not self._options.pictures:
            return b""
        what = "incidents" if alert.id == alert.incident else "alarms"
        number = alert.id.removeprefix(self._settings.realm)
        url = f"{self._options.pictures.rstrip('/')}/api/v1/{what}/{number}/picture.svg"
        try:
            answer = request(self._pictures, "GET", url, None, {})
        except TransientError:
            return b""
        known = answer.status == 200 and answer.body.startswith(b"<svg ")
        return answer.body if known and len(answer.body) <= PICTURE_BYTES_MAX else b""

    def _connect(self) -> smtplib.SMTP:
        host, port = self._address
        seconds = self._settings.timeout_seconds
        server: smtplib.SMTP
        if self._scheme == "smtps":
            server = _TlsServer(host, port, timeout=seconds, context=tls(self._settings))
        else:
            server = _Server(host, port, timeout=seconds)
        try:
            if self._scheme == "smtp+starttls":
                server.starttls(context=tls(self._settings))
            if self._settings.user:
                password = secret(self._settings.password_file, "password_file")
                server.login(self._settings.user, password)
        except BaseException:
            server.close()
            raise
        return server

    def repeat(self, active: Sequence[Alert], *, now_ns: int) -> None:
        """Mail stays: nothing to say again."""

    def close(self) -> None:
        """Nothing is held open."""


def _failure(
    code: int, text: bytes | str, *, final: bool | None = None, of: str = ""
) -> TransientError:
    said = text.decode(errors="replace") if isinstance(text, bytes) else text
    kind = RefusedError if (code in REFUSED if final is None else final) else TransientError
    about = f" of {of}" if of else ""
    return kind(f"the mail server answered {code}{about}: {line(said, 200)}")


def mail(
    parcel: Parcel, options: MailOptions, *, now_ns: int, picture: bytes = b""
) -> EmailMessage:
    """Return the mail of one change. All of an alarm's changes refer to one thread.

    A picture is an attachment that the HTML part shows in its place (RFC 2387, RFC 2392).
    """
    alert = parcel.alert
    made = EmailMessage(policy=SMTP)
    made["From"] = options.sender
    made["To"] = ", ".join(options.to)
    made["Subject"] = line(f"[{verb(alert)}] {alert.title}", 200)
    made["Date"] = formatdate(now_ns / 1e9)
    made["Message-ID"] = f"<{_word(parcel.key)}@{options.domain}>"
    thread = f"<{_word(alert.id)}-{alert.raised_ns}@{options.domain}>"
    made["References"] = thread
    made["In-Reply-To"] = thread
    made["Auto-Submitted"] = "auto-generated"
    made["X-Tocsin-Change"] = line(alert.change, 120)
    made.set_content(story(alert) + "\n")
    shown = f"{_word(alert.id)}-{alert.changed_ns}@{options.domain}"
    made.add_alternative(page(alert, shown if picture else ""), subtype="html")
    if picture:
        *_, html = made.iter_parts()
        assert isinstance(html, EmailMessage)
        html.add_related(
            picture,
            "image",
            "svg+xml",
            cid=f"<{shown}>",
            disposition="inline",
            filename="series.svg",
        )
    return made


def _word(text: str) -> str:
    return "".join(c for c in text if c.isascii() and (c.isalnum() or c in "-_."))[:200]


def page(alert: Alert, picture: str = "") -> str:
    """Return the alert as a small HTML page; every text is escaped. `picture` is a content id."""
    escape = ESCAPES["html"]
    rows = "".join(
        f"<tr><th align=left>{escape(name.replace('_', ' '))}</th><td>{escape(value)}</td></tr>"
        for name, value in facts(alert).items()
    )
    shown = f'<p><img src="cid:{picture}" alt="the series and its band"></p>' if picture else ""
    return (
        f"<!doctype html><html><body><h3>{escape(alert.title)}</h3>{shown}"
        f"<table>{rows}</table></body></html>"
    )


def _make(settings: SinkSettings, options: MailOptions) -> MailSink:
    return MailSink(settings, options)


SINK = Part("e-mail over SMTP", _make, MailOptions, needs=("url",), schemes=tuple(PORTS))
