"""`tocsin tail alerts|incidents`: the live feed of a running node."""

from pathlib import Path

import click


@click.command()
@click.argument("what", type=click.Choice(["alerts", "incidents"]), default="alerts")
@click.option(
    "-o", "--output", type=click.Choice(["table", "jsonl"]), default="table", show_default=True
)
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def tail(what: str, output: str, state: Path | None) -> None:
    """Follow every alarm as it changes, or incidents: alarms of one cause told as one.

    Gaps of the feed are told. Ctrl-C ends it.
    """
    import struct

    import msgspec
    import zmq

    from alerting.words.alert import Alert
    from alerting.words.wording import human
    from telemetry.errors import TransientError
    from telemetry.text import printable
    from tocsin.state import state_dir

    folder = state_dir(state)
    if not (folder / "frames.sock").exists():
        raise TransientError(f"no node runs on {folder}; --state names another state folder")
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    listening = context.socket(zmq.SUB)
    listening.setsockopt(zmq.SUBSCRIBE, what.encode())
    listening.setsockopt(zmq.LINGER, 0)
    listening.connect(f"ipc://{folder}/frames.sock")
    last = 0
    try:
        while True:
            _, number, body = listening.recv_multipart()
            (sequence,) = struct.unpack("<Q", number)
            if last and sequence > last + 1:
                click.echo(f"{sequence - last - 1} {what} were missed", err=True)
            last = sequence
            if output == "jsonl":
                click.echo(body.decode())
            else:
                click.echo(printable(human(msgspec.json.decode(body, type=Alert))))
    except KeyboardInterrupt:
        return
    finally:
        listening.close()
        context.term()
