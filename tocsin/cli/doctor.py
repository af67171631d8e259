"""`tocsin doctor`: what is wrong on this machine, and how to fix it. Exit 3 when something is."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click


@click.command()
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def doctor(path: Path | None, state: Path | None) -> None:
    """Look at the installation, the machine and a running node; each finding says what to do."""
    from tocsin.config import load_config
    from tocsin.state import state_dir

    config = load_config(path)
    folder = state_dir(state or (Path(config.node.state_dir) if config.node.state_dir else None))
    wanted = max((c.receive_buffer_bytes for c in config.collectors.values()), default=0)
    findings = [*_installation(), *_machine(wanted), *_state(folder), *_node(folder)]
    for good, text in findings:
        click.echo(f"{'ok  ' if good else 'FIX '} {text}")
    raise SystemExit(0 if all(good for good, _ in findings) else 3)


def _installation() -> Iterator[tuple[bool, str]]:
    from importlib.util import find_spec

    good = sys.version_info >= (3, 11)
    yield good, f"Python {sys.version.split()[0]}" + ("" if good else ": 3.11 or newer is needed")
    names = (
        "telemetry",
        "runtime",
        "collectors",
        "correlator",
        "detectors",
        "history",
        "alerting",
        "tocsin",
    )
    folders = set()
    for name in names:
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
    for name, use in (("numba", "kernels"), ("chdb", "history on this machine (profile site)")):
        found = find_spec(name) is not None
        yield (
            found,
            f"{name}: {use}"
            + (
                ""
                if found
                else f" is missing: pip install 'tocsin[{'jit' if name == 'numba' else 'site'}]'"
            ),
        )


def _machine(wanted: int) -> Iterator[tuple[bool, str]]:
    from collectors.listener import probe_buffer

    if wanted:
        yield receive_buffers(wanted, probe_buffer(wanted))


def receive_buffers(wanted: int, granted: int) -> tuple[bool, str]:
    """Return whether sockets get the buffers that are asked for, and what to do where not."""
    from collectors.listener import buffer_fix

    if granted >= wanted:
        return True, f"receive buffers of {wanted} bytes are granted"
    return False, (
        f"receive buffers: {granted} bytes are granted, {wanted} asked for, so a burst is lost "
        f"sooner: {buffer_fix(wanted)} (and in /etc/sysctl.d to keep it), or lower "
        f"receive_buffer_bytes"
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
