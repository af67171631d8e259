"""Case files: everything needed to see an alert again, in one zip. A bug report is this one file.

    manifest.json            version, moment, what is inside, SHA-256 of every entry
    config.json              the configuration that counted, without sinks and doors
    network.toml             the network map, where there was one
    checkpoint/N.checkpoint  all state before the moment
    journal/N.arrows         the ticks from there to the moment, with control rows and results
    templates/N.checkpoint   the templates known before the datagrams
    datagrams.pcapng         what was received around the moment, and of byte streams all before it,
                             from the raw ring

Replay goes from the checkpoint through the ticks; the datagrams are there for whoever asks why a tick
looks as it does. An anonymised case has none: what exporters say inside is not ours to rewrite.
"""

import hashlib
import json
import logging
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from alerting.config import AlertingSettings
from collectors.capture.writer import PcapngWriter, datagrams_of
from collectors.listen.udp import is_stream
from collectors.reading import Readings
from runtime.checkpoint import Checkpoints, read_checkpoint, read_record
from runtime.clock import ManualClock
from runtime.component import Context
from runtime.journal import Block, BlockKind, JournalReader, segments, write_segment
from runtime.metrics import Metrics
from telemetry.errors import ConfigError, DecodeError
from tocsin import __version__
from tocsin.cases.anonymise import AnonymisedState, Mapper
from tocsin.chain.raw_ring import read_ring
from tocsin.config import Config, NetworkSettings
from tocsin.process_settings import ApiSettings

SECOND = 1_000_000_000
CASE_BYTES_MAX = 8 * 1024**3  # of one entry, unpacked


def write_case(
    state: Path,
    config: Config,
    output: Path,
    *,
    around_ns: int,
    before_seconds: float = 60.0,
    after_seconds: float = 10.0,
    anonymise: str = "",
) -> dict[str, Any]:
    """Write a case around a moment and return its manifest; raise ConfigError when nothing is left.

    `anonymise`: a secret; addresses are then mapped so that common prefixes stay common.
    """
    until_ns = around_ns + round(after_seconds * SECOND)
    since_ns = around_ns - round(before_seconds * SECOND)
    mapper = Mapper(anonymise) if anonymise else None
    oldest = min((int(file.stem) for file in segments(state / "journal")), default=1)
    checkpoint, first = _checkpoint_before(state / "checkpoints", around_ns)
    with tempfile.TemporaryDirectory(prefix="tocsin-case-") as name:
        folder = Path(name)
        ticks = _copy_ticks(state / "journal", folder / "journal", first, until_ns, mapper)
        if not ticks:
            raise ConfigError(
                f"the journal in {state} holds no tick from {_when(around_ns)} any more, or none "
                f"yet; raise node.journal_bytes_max to keep more"
            )
        if checkpoint is not None:
            _copy_checkpoint(checkpoint, folder / "checkpoint", config, mapper)
        _copy_config(config, folder, mapper)
        datagrams = 0
        if mapper is None:
            datagrams = _copy_datagrams(config, state / "ring", folder, since_ns, until_ns)
            _copy_templates(state / "templates", folder / "templates", since_ns)
        manifest = {
            "tocsin": __version__,
            "around_ns": around_ns,
            "first_sequence": first,
            "whole": oldest <= first,  # else what was learned before is gone, and scores may differ
            "ticks": ticks,
            "datagrams": datagrams,
            "anonymised": bool(anonymise),
        }
        _zip(folder, output, manifest)
    return manifest


def unpack_case(path: Path, folder: Path) -> Config:
    """Unpack a case, check every hash, and return its configuration; raise DecodeError."""
    try:
        with zipfile.ZipFile(path) as archive:
            manifest = json.loads(archive.read("manifest.json"))
            for entry, wanted in sorted(manifest["sha256"].items()):
                target = (folder / entry).resolve()
                if not target.is_relative_to(folder.resolve()):
                    raise DecodeError("corrupt", f"{path}: entry {entry!r} leaves the case")
                if archive.getinfo(entry).file_size > CASE_BYTES_MAX:
                    raise DecodeError("corrupt", f"{path}: entry {entry!r} is too large")
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, target.open("wb") as file:
                    digest = hashlib.sha256()
                    while part := source.read(1 << 20):
                        digest.update(part)
                        file.write(part)
                if digest.hexdigest() != wanted:
                    raise DecodeError("corrupt", f"{path}: {entry} is not what was captured")
        config = msgspec.json.decode((folder / "config.json").read_bytes(), type=Config)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError) as error:
        raise DecodeError("corrupt", f"{path} is no case file, or was cut: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError, FileNotFoundError) as error:
        raise DecodeError("corrupt", f"{path} is no case file of ours: {error}") from error
    network = folder / "network.toml"
    named = NetworkSettings(map=str(network) if network.exists() else "")
    return msgspec.structs.replace(config, network=named)


def _checkpoint_before(folder: Path, around_ns: int) -> tuple[Path | None, int]:
    """Return the newest checkpoint before a moment and the journal sequence behind it."""
    chosen, first = None, 1
    for path in sorted(folder.glob("*.checkpoint")):
        try:
            with path.open("rb") as file:
                head, _ = read_record(file)
            if int(head["tick_end_ns"]) < around_ns:
                chosen, first = path, int(head["sequence"]) + 1
        except (DecodeError, KeyError, OSError):
            continue  # damaged, or gone meanwhile: the one before it serves as well
    return chosen, first


def _copy_ticks(
    journal: Path, target: Path, first: int, until_ns: int, mapper: Mapper | None
) -> int:
    ticks = 0

    def blocks() -> Iterator[Block]:
        nonlocal ticks
        for block in JournalReader(journal, next_sequence=first).read():
            if block.tick_end_ns > until_ns:
                return
            ticks += block.kind is BlockKind.TICK
            if mapper is not None:
                batches = tuple(mapper.batch(batch) for batch in block.batches)
                block = Block(block.sequence, block.kind, block.tick_end_ns, batches)
            yield block

    write_segment(target, blocks())
    return ticks


def _copy_checkpoint(path: Path, target: Path, config: Config, mapper: Mapper | None) -> None:
    if mapper is None:
        target.mkdir()
        (target / path.name).write_bytes(path.read_bytes())
        return
    sequence, tick_end_ns, state = read_checkpoint(path)
    mapped = AnonymisedState(state.scoped("back"), config.all_views(), mapper)
    Checkpoints(target, _context()).save(sequence, tick_end_ns, {"back": mapped})


def _copy_config(config: Config, folder: Path, mapper: Mapper | None) -> None:
    text: Callable[[str], str] = mapper.text if mapper else lambda said: said
    if config.network.map:
        network = Path(config.network.map).read_text("utf-8")
        (folder / "network.toml").write_text(text(network), "utf-8")
    # Sinks and doors may hold names, addresses and paths of secrets, and replay opens none of them.
    alerting = msgspec.structs.replace(config.alerting, sinks=AlertingSettings().sinks)
    bare = msgspec.structs.replace(config, alerting=alerting, api=ApiSettings())
    (folder / "config.json").write_text(text(msgspec.json.encode(bare).decode()), "utf-8")


def _copy_datagrams(config: Config, ring: Path, folder: Path, since_ns: int, until_ns: int) -> int:
    """Copy what was received, each to the port by which its protocol is known.

    Streams are copied from as far back as the ring goes: what a session says depends on its beginning.
    """
    streams = {name for name, one in config.collectors.items() if is_stream(one.listen)}
    readings = Readings()
    ports = {
        name: readings.port(one.kind, stream=name in streams)
        for name, one in config.collectors.items()
    }
    kept = [
        (datagram, ports.get(listener, 0))
        for listener, part in read_ring(ring, since_ns=0, until_ns=until_ns)
        for datagram in datagrams_of(part, stream=listener in streams)
        if datagram.stream or datagram.arrival_ns >= since_ns
    ]
    # The ring holds blocks, of each listener and shard by itself; a capture is in time's order.
    writer = PcapngWriter(folder / "datagrams.pcapng")
    for datagram, port in sorted(kept, key=lambda one: one[0].arrival_ns):
        writer.write(datagram, destination_port=port)
    writer.close()
    return len(kept)


def _copy_templates(templates: Path, target: Path, since_ns: int) -> None:
    files = sorted(file for file in templates.rglob("*.checkpoint"))
    before = [file for file in files if file.stat().st_mtime_ns <= since_ns] or files
    for file in before[-1:]:
        target.mkdir(exist_ok=True)
        (target / file.name).write_bytes(file.read_bytes())


def _zip(folder: Path, output: Path, manifest: dict[str, Any]) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {}
    new = output.with_name(output.name + ".new")
    with zipfile.ZipFile(new, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in files:
            entry = str(file.relative_to(folder))
            hashes[entry] = hashlib.sha256(file.read_bytes()).hexdigest()
            archive.write(file, entry)
        manifest["sha256"] = hashes
        archive.writestr("manifest.json", json.dumps(manifest, indent=1))
    new.replace(output)


def _context() -> Context:
    return Context("case", ManualClock(), Metrics("case"), logging.getLogger(__name__), (0,))


def _when(time_ns: int) -> str:
    return str(np.datetime64(time_ns // SECOND, "s")) + "Z"
