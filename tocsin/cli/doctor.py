"""`tocsin doctor`: what is wrong on this machine, and how to fix it. Exit 3 when something is."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from telemetry.text import printable

if TYPE_CHECKING:
    from tocsin.config import Config

CLOCK_UNSYNCHRONISED = 5  # TIME_ERROR


@click.command()
@click.argument("what", nargs=-1, metavar="[exporter ADDRESS]")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def doctor(what: tuple[str, ...], path: Path | None, state: Path | None) -> None:
    """Look at the installation, the machine, a running node and its senders; each finding says what to do.

    With `exporter ADDRESS`: all that is known of one sender, with the lines of its configuration that
    mend what is wrong (IOS-XR, Junos, SR OS, VRP, EOS).
    """
    if what and (len(what) != 2 or what[0] != "exporter"):
        raise click.UsageError("say `tocsin doctor`, or `tocsin doctor exporter ADDRESS`")
    from tocsin.cli.doctor_ports import ports
    from tocsin.config import load_config
    from tocsin.state import state_dir

    config = load_config(path)
    folder = state_dir(state or (Path(config.node.state_dir) if config.node.state_dir else None))
    named = bool(config.network.map)  # its names are told by `config check`
    if what:
        _tell(_senders(folder, _address(what[1]), named=named))
    wanted = max((c.receive_buffer_bytes for c in config.collectors.values()), default=0)
    findings = [
        *_installation(),
        *_history(config, folder),
        *_machine(wanted),
        clock(),
        *_state(folder),
    ]
    _tell([*findings, *ports(config, folder), *_node(folder), *_senders(folder, named=named)])


def _tell(findings: Iterable[tuple[bool, str]]) -> NoReturn:
    """Print findings and end: exit 3 where there is something to mend."""
    told = list(findings)
    for good, text in told:
        click.echo(printable(f"{'ok  ' if good else 'FIX '} {text}"))
    raise SystemExit(0 if all(good for good, _ in told) else 3)


def _address(text: str) -> str:
    from telemetry.identity import address_pair, address_text

    try:
        return address_text(*address_pair(text))
    except ValueError as error:
        raise click.UsageError(f"{text!r} is no address of a sender: {error}") from error


def _installation() -> Iterator[tuple[bool, str]]:
    from importlib.util import find_spec

    from tocsin import PACKAGES

    good = sys.version_info >= (3, 11)
    yield good, f"Python {sys.version.split()[0]}" + ("" if good else ": 3.11 or newer is needed")
    folders = set()
    for name in PACKAGES:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            yield False, f"package {name} is missing: install Tocsin again"
            continue
        folders.add(Path(spec.origin).parents[1])
    if len(folders) > 1:
        places = ", ".join(map(str, sorted(folders)))
        yield (
            False,
            f"our packages come from several folders ({places}): another package shadows one",
        )
    else:
        yield True, "all packages come from one folder"
    yield _kernels()


def _history(config: "Config", folder: Path) -> Iterator[tuple[bool, str]]:
    """Say what the history is kept in, and whether that answers."""
    from importlib.util import find_spec

    from telemetry.errors import TocsinError
    from tocsin.desk.store import open_store

    if config.node.profile == "sensor":
        return
    if config.history.store == "chdb":
        found = find_spec("chdb") is not None
        yield (
            found,
            "chdb: history on this machine"
            + ("" if found else " is missing: pip install 'tocsin[site]', or profile = \"sensor\""),
        )
        return
    try:
        yield True, f"history: {open_store(config.history, folder).look()}"
    except TocsinError as error:
        yield False, f"history: {error}. Nothing is lost meanwhile: the journal keeps it"


def _kernels() -> tuple[bool, str]:
    """Return what the kernels run from: a library made ahead of time, else numba."""
    from importlib.util import find_spec

    from runtime.kernel_library import find_library, present
    from runtime.kernels import KERNEL_MODULES

    library, why = find_library(KERNEL_MODULES)
    if library is not None:
        return True, "kernels: a library made ahead of time"
    if find_spec("numba") is not None:
        return True, "kernels: numba" + (f"; a library is refused: {why}" if present() else "")
    return False, (
        f"kernels: numba is missing and {why}: pip install 'tocsin[jit]', or bring a library "
        f"(docs/install.md)"
    )


def _machine(wanted: int) -> Iterator[tuple[bool, str]]:
    from collectors.listen.udp import probe_buffer

    if wanted:
        yield receive_buffers(wanted, probe_buffer(wanted))


def receive_buffers(wanted: int, granted: int) -> tuple[bool, str]:
    """Return whether sockets get the buffers that are asked for, and what to do where not."""
    from collectors.listen.udp import buffer_fix

    if granted >= wanted:
        return True, f"receive buffers of {wanted} bytes are granted"
    return False, (
        f"receive buffers: {granted} bytes are granted, {wanted} asked for, so a burst is lost "
        f"sooner: {buffer_fix(wanted)} (and in /etc/sysctl.d to keep it), or lower "
        f"receive_buffer_bytes"
    )


def clock(state: int | None = None) -> tuple[bool, str]:
    """Return whether the machine's clock is synchronised, by adjtimex(2); `state` for tests."""
    import ctypes

    if state is None:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(256)  # struct timex, modes = 0: read only
        state = int(libc.adjtimex(buffer))
    if state != CLOCK_UNSYNCHRONISED:
        return True, "the clock is synchronised"
    # No fault of Tocsin's: offsets of exporters are told against this clock all the same.
    return True, (
        "clock: not synchronised as far as the kernel knows (in a container it cannot tell); where nobody "
        "keeps its time, install chrony: ticks and alarms carry it"
    )


def _state(folder: Path) -> Iterator[tuple[bool, str]]:
    import shutil

    from tocsin.state import kernel_environment

    _, said = kernel_environment(folder)
    yield not said, said or f"state folder {folder} can be written"
    if folder.exists():
        free = shutil.disk_usage(folder).free
        yield (
            free > 1 << 30,
            f"{free / 1e9:.1f} GB free in {folder}"
            + ("" if free > 1 << 30 else ": less than 1 GB; the journal needs room"),
        )
        for path in sorted(folder.rglob("*.damaged*")):
            yield (
                False,
                f"{path} was set aside as damaged; send it with a bug report, then delete it",
            )


def _senders(folder: Path, only: str = "", *, named: bool) -> Iterator[tuple[bool, str]]:
    """Say what each sender does; nothing where no node runs, that is told elsewhere."""
    from runtime.bus import RequestClient
    from telemetry.errors import TransientError
    from tocsin import verbs
    from tocsin.cli.doctor_senders import findings, full_tables, told_by
    from tocsin.node.senders import SenderStatus

    if not (folder / "node.sock").exists():
        if only:
            yield (
                False,
                f"no node runs on {folder}: start it with `tocsin run`, or name it by --state",
            )
        return
    client = RequestClient(f"ipc://{folder}/node.sock")
    try:
        now_ns = client.ask("status", verbs.Nothing(), verbs.Status).now_ns
        senders = client.ask("senders", only, list[SenderStatus])
        text = client.ask("metrics", verbs.Nothing(), verbs.MetricsText).text
    except TransientError:
        return  # told by _node
    finally:
        client.close()
    told = told_by(text, named=named)
    yield from findings(senders, now_ns=now_ns, told=told, only=only)
    if not only:
        yield from full_tables(text)


def _node(folder: Path) -> Iterator[tuple[bool, str]]:
    from runtime.bus import RequestClient
    from telemetry.errors import TransientError
    from tocsin import verbs

    if not (folder / "node.sock").exists():
        yield True, "no node runs on this state folder"
        return
    client = RequestClient(f"ipc://{folder}/node.sock")
    try:
        status = client.ask("status", verbs.Nothing(), verbs.Status)
    except TransientError:
        yield False, f"{folder}/node.sock is there but no node answers: start it with `tocsin run`"
        return
    finally:
        client.close()
    yield True, f"node {status.version}: {status.series} series, {status.exporters} exporters"
    yield from _baselines(status.baselines)
    if waiting := sorted(name for name, stage in status.security.items() if stage != "judging"):
        yield True, f"security, warming up (only hard evidence counts): {', '.join(waiting)}"
    if status.on_probation:
        yield (
            True,
            (
                f"{status.on_probation} detectors are on probation: what they find is shown, not sent; "
                f"`tocsin probation list`"
            ),
        )
    for worker in status.workers:
        yield (
            worker.counts,
            (
                f"shard {worker.shard} (pid {worker.pid}): {worker.restarts} restarts"
                + ("" if worker.counts else ": it is down; the log says why")
            ),
        )
    for text in status.health:
        yield False, text
    for listener in status.listeners:
        said = f"{listener.name} on {listener.address}: {listener.datagrams} datagrams"
        if listener.kernel_drops:
            said += (
                f", {listener.kernel_drops} lost in the kernel's buffer of "
                f"{listener.receive_buffer_bytes} bytes: raise receive_buffer_bytes and "
                f"net.core.rmem_max, or node.workers"
            )
        elif not listener.datagrams:
            said += ": nothing received; point exporters here and look at firewalls"
        yield not listener.kernel_drops, said


def _baselines(views: dict[str, list[int]]) -> Iterator[tuple[bool, str]]:
    """Say of each view how far its series' baselines have come."""
    from detectors.life import STAGES

    for view, counts in sorted(views.items()):
        if sum(counts):
            parts = [f"{n} {name}" for n, name in zip(counts, STAGES, strict=True) if n]
            yield True, f"baselines of {view}: {', '.join(parts)}"
