"""`tocsin handover`: the report for the next shift."""

from pathlib import Path

import click

BACK_NS = 90 * 86_400_000_000_000  # an incident that is open changed so long ago at most


@click.command()
@click.option("--since", default="8h", show_default=True, help="RFC 3339, or 8h for so long ago.")
@click.option("--operators", type=click.IntRange(1, 1000), help="Else `alerting.operators`.")
@click.option("-c", "--config", "path", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--state", type=click.Path(path_type=Path), help="State folder.")
def handover(since: str, operators: int | None, path: Path | None, state: Path | None) -> None:
    """Print what is open, what changed, what is hidden, works to come, load and noise."""
    import msgspec

    from alerting.life.windows import Window
    from history.reader import LOAD_SQL
    from runtime.bus import RequestClient
    from runtime.clock import SystemClock
    from telemetry.errors import ConfigError, TransientError
    from telemetry.text import printable
    from tocsin import verbs
    from tocsin.config import load_config
    from tocsin.desk import ask
    from tocsin.reports.handover import report
    from tocsin.state import state_dir
    from tocsin.times import time_ns

    config, folder = load_config(path), state_dir(state)
    now_ns = SystemClock().now_ns()
    since_ns = time_ns(since, now_ns=now_ns)
    if since_ns >= now_ns:
        raise ConfigError(f"--since {since} is still to come: a shift has begun before now")

    def rows(sql: str) -> list[dict[str, object]]:
        lines = ask.query(config, folder, sql, "JSONEachRow").splitlines()
        made = [msgspec.json.decode(line) for line in lines if line]
        return [
            {k: int(v) if k.endswith(("_ns", "_id", "_count")) else v for k, v in row.items()}
            for row in made
        ]

    load = LOAD_SQL.replace("{since:Int64}", str(since_ns))
    changes = rows(f"select * from ({load}) order by changed_ns")
    incidents = rows(
        "select * from (select opened_ns, changed_ns, closed_ns, severity, title, state, alarms_count,"
        " operator_state, operator, parent_incident_id from incidents"
        f" where changed_ns >= {since_ns - BACK_NS} order by changed_ns desc limit 1 by incident_id)"
        f" where closed_ns = 0 or closed_ns >= {since_ns} order by changed_ns desc"
    )
    windows: list[Window] = []
    blind: list[str] = []
    client = RequestClient(f"ipc://{folder}/node.sock")
    try:
        answer = client.ask("windows", verbs.Nothing(), verbs.WindowsAnswer, timeout_seconds=2.0)
        windows = [msgspec.convert(one, Window) for one in answer.windows]
        blind = client.ask("status", verbs.Nothing(), verbs.Status, timeout_seconds=2.0).health
    except TransientError as error:
        blind = [f"the node does not answer: {error}"]
    finally:
        client.close()
    blind = ask.problems(folder) or blind  # the desk knows of the node, and how far the history is
    text = report(
        changes, incidents, windows, since_ns=since_ns, now_ns=now_ns, blind=blind,
        operators=operators or config.alerting.operators,
        acknowledge_seconds=config.alerting.acknowledge_seconds,
    )  # fmt: skip
    click.echo(printable(text))
