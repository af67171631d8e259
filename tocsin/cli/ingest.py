"""`tocsin ingest`: files of records to a running Tocsin, by a mapping of its configuration."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from telemetry.errors import ConfigError, DecodeError, TransientError

BLOCK_BYTES = 262_144
WATCH_SECONDS = 2.0
PAUSE_SECONDS_MAX = 60.0


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option(
    "-m", "--mapping", default="", help="name of the mapping; needed where there are several"
)
@click.option("--watch", is_flag=True, help="stay and take what comes into the folder")
@click.option("-c", "--config", type=click.Path(path_type=Path), help="of the running Tocsin")
@click.option(
    "--url",
    default="",
    help="http(s)://host:port of its ingest source; else from the configuration",
)
@click.option("--user", default="", help="for HTTP basic authentication")
@click.option("--password-file", default="")
@click.option("--token-file", default="", help="its content is sent as a bearer token")
@click.option("--ca-file", default="", help="certificates that signed the server's")
def ingest(
    paths: tuple[Path, ...],
    mapping: str,
    watch: bool,
    config: Path | None,
    url: str,
    **access: str,
) -> None:
    """Send files, or the files of folders, to the ingest source of a running Tocsin.

    A folder's files are moved to done/ or, with the reason beside, to failed/; files that you name
    stay where they are. What was taken before is not taken again, so a run that was cut off is
    simply repeated. Exit code 3: something was rejected.
    """
    from runtime.clock import SystemClock
    from runtime.component import Context
    from runtime.logs import child
    from runtime.metrics import Metrics

    if watch and not all(path.is_dir() for path in paths):
        raise click.UsageError("--watch is for folders")
    context = Context("ingest", SystemClock(), Metrics("ingest"), child("ingest"), (0,))
    source_url, name = _source(config, url, mapping)
    remote = Remote(source_url, name, context, access)
    remote.greet()
    good = True
    for path in paths:
        if path.is_dir():
            good &= _folder(path, remote, context, watch=watch and path == paths[-1])
        else:
            good &= _one(path, remote)
    sys.exit(0 if good else 3)


class Remote:
    """Takes files by sending them to the ingest source of a running Tocsin."""

    def __init__(self, url: str, mapping: str, context: Any, access: dict[str, str]) -> None:
        import msgspec

        from collectors.http.client import HttpPeer, PeerSettings

        limits = {"answer_seconds_max": 3600.0, "timeout_seconds": 3600.0}
        settings = msgspec.convert({"url": url, **access, **limits}, PeerSettings)
        self._peer = HttpPeer(settings, context.clock)
        self._mapping = mapping

    def greet(self) -> None:
        """Ask whether the other side knows us and the mapping, before much is sent; or raise PeerError."""
        self._peer.ask(f"/ingest/{self._mapping}")

    def file(self, path: Path, progress: Callable[[int], None] = lambda position: None) -> Any:
        """Send one file; return the outcome that the other side tells."""
        from collectors.http.client import PeerError
        from collectors.mapped.ingest import Outcome

        packed = path.suffix == ".gz"
        headers = {"Content-Type": "application/octet-stream"}
        headers |= {"Content-Encoding": "gzip"} if packed else {}
        name = path.stem if packed else path.name
        try:
            answer = self._peer.ask(
                f"/ingest/{self._mapping}",
                {"name": name},
                method="POST",
                body=_blocks(path, progress),
                headers=headers,
            )
        except PeerError as error:
            if error.status in (400, 413, 415, 422):  # it is the file
                raise DecodeError("refused", str(error)) from error
            raise
        said = json.loads(answer.body)
        return Outcome(said["taken"], said["repeated"], Counter(said.get("by_reason", {})))


def _blocks(path: Path, progress: Callable[[int], None]) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block
            progress(file.tell())


def _source(config: Path | None, url: str, mapping: str) -> tuple[str, str]:
    """Return (URL, mapping) of the ingest source to send to, or raise ConfigError."""
    if url:
        if not mapping:
            raise click.UsageError("--url needs --mapping")
        return url, mapping
    from tocsin.config import load_config

    sources = load_config(config).sources
    there = {
        (settings.options["listen"], word)
        for settings in sources.values()
        if settings.kind == "ingest" and settings.options.get("listen")
        for word in settings.options.get("mappings", {})
    }
    if not there:
        raise ConfigError(
            'no source of kind "ingest" listens: name the configuration with -c, or --url and --mapping'
        )
    found = {(listen, word) for listen, word in there if mapping in ("", word)}
    if not found:
        known = ", ".join(sorted(word for _, word in there))
        raise ConfigError(f"no mapping {mapping!r} is in the configuration: there is {known}")
    if len(found) > 1:
        known = ", ".join(sorted(word for _, word in found))
        raise click.UsageError(f"name one of the mappings with --mapping: {known}")
    listen, word = found.pop()
    return listen.replace("[::]", "127.0.0.1").replace("0.0.0.0", "127.0.0.1"), word  # noqa: S104


def _one(path: Path, remote: Remote) -> bool:
    try:
        outcome = remote.file(path, _progress(path))
    except (DecodeError, OSError) as error:
        click.echo(f"{path}: failed: {error}", err=True)
        return False
    click.echo(f"{path}: {outcome.sentence()}")
    return not outcome.rejected


def _folder(path: Path, remote: Remote, context: Any, *, watch: bool) -> bool:
    """Take what lies in a folder, or with `watch` what comes as well, until interrupted."""
    from collectors.mapped.ingest import WatchedFolder

    folder = WatchedFolder(path, remote, context)
    good, pause = True, WATCH_SECONDS
    while True:
        try:
            for file in folder.waiting(settled=watch):
                done, sentence = folder.take(file, _progress(file))
                click.echo(sentence, err=not done)
                good &= done
            pause = WATCH_SECONDS
        except TransientError as error:
            if not watch:
                raise
            click.echo(f"tocsin: {error}; next try in {pause:g} s", err=True)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)
        if not watch:
            return good
        context.clock.sleep(pause)


def _progress(path: Path) -> Callable[[int], None]:
    """Return what shows how far a file has got, on a terminal only."""
    total = max(path.stat().st_size, 1)
    shown = -1

    def show(position: int) -> None:
        nonlocal shown
        percent = 100 * position // total
        if sys.stderr.isatty() and percent != shown:
            shown = percent
            click.echo(f"\r{path.name} {percent} %", err=True, nl=percent == 100)

    return show
