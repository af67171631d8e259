"""Case files: everything needed to see an alert again, in one zip. A bug report is this one file.

Holds the checkpoint before the moment, the journalled ticks from there on, the datagrams around it
from the raw ring, the configuration, and a manifest with hashes.
"""

import hashlib
import json
import tempfile
import zipfile
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import msgspec

from collectors.capture import Datagram, PcapngWriter, datagrams_of
from runtime.journal import JournalReader, segments
from telemetry.errors import ConfigError
from telemetry.identity import V4_MAPPED
from tocsin import __version__
from tocsin.raw_ring import read_ring

SECOND = 1_000_000_000


def write_case(
    state: Path,
    config_text: str,
    output: Path,
    *,
    around_ns: int,
    before_seconds: float = 60.0,
    after_seconds: float = 10.0,
    anonymise: str = "",
) -> dict[str, object]:
    """Write a case around a moment and return its manifest; raise ConfigError when nothing is left.

    `anonymise`: a secret; addresses of senders are then mapped so that common prefixes stay common.
    """
    until_ns = around_ns + round(after_seconds * SECOND)
    checkpoints = sorted((state / "checkpoints").glob("*.checkpoint"))
    first, chosen = 1, None
    for path in checkpoints:
        head = json.loads(_head(path))
        if int(head["tick_end_ns"]) < around_ns:
            chosen, first = path, int(head["sequence"]) + 1
    ticks = 0
    files = segments(state / "journal")
    needed = [
        f for i, f in enumerate(files) if i + 1 == len(files) or int(files[i + 1].stem) > first
    ]
    for block in JournalReader(state / "journal", next_sequence=first).read():
        if block.tick_end_ns > until_ns:
            break
        ticks += block.kind == 1
    if not ticks:
        raise ConfigError(
            f"the journal in {state} holds no tick before that moment any more; "
            f"raise node.journal_bytes_max to keep more"
        )
    count = 0
    hashes: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="tocsin-case-") as name:
        capture = Path(name) / "datagrams.pcapng"
        writer = PcapngWriter(capture)
        since_ns = around_ns - round(before_seconds * SECOND)
        kept = [
            (datagram, 6343 if listener == "sflow" else 2055)
            for listener, part in read_ring(state / "ring", since_ns=since_ns, until_ns=until_ns)
            for datagram in datagrams_of(part)
        ]
        # The ring holds blocks, of each listener and shard by itself; a capture is in time's order.
        for datagram, port in sorted(kept, key=lambda one: one[0].arrival_ns):
            writer.write(
                _hidden(datagram, anonymise) if anonymise else datagram, destination_port=port
            )
            count += 1
        writer.close()
        with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
            entries = [(capture, "datagrams.pcapng")]
            entries += [(chosen, f"checkpoint/{chosen.name}")] if chosen else []
            entries += [(f, f"journal/{f.name}") for f in needed]
            for path, entry in entries:
                data = path.read_bytes()
                hashes[entry] = hashlib.sha256(data).hexdigest()
                archive.writestr(entry, data)
            archive.writestr("config.toml", config_text)
            manifest: dict[str, object] = {
                "tocsin": __version__,
                "around_ns": around_ns,
                "first_sequence": first,
                "ticks": ticks,
                "datagrams": count,
                "anonymised": bool(anonymise),
                "sha256": hashes,
            }
            archive.writestr("manifest.json", json.dumps(manifest, indent=1))
    return manifest


def _head(path: Path) -> bytes:
    """Return the JSON head of a checkpoint."""
    from runtime.checkpoint import read_record

    with path.open("rb") as file:
        head, _ = read_record(file)
    return msgspec.json.encode(head)


def _hidden(datagram: Datagram, secret: str) -> Datagram:
    """Map the sender's IPv4 address so that shared prefixes stay shared (Xu et al. 2002, Crypto-PAn)."""
    if datagram.source_high or datagram.source_low >> 32 != 0xFFFF:
        return datagram
    address = datagram.source_low & 0xFFFFFFFF
    mapped = 0
    for bit in range(32):
        prefix = address >> (32 - bit) if bit else 0
        flip = (
            blake2b(f"{bit}:{prefix}".encode(), key=secret.encode()[:64], digest_size=1).digest()[0]
            & 1
        )
        mapped = mapped << 1 | ((address >> (31 - bit) & 1) ^ flip)
    low = V4_MAPPED | mapped
    return replace(datagram, source_low=low)
