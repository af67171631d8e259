"""Dashboards in Grafana: those that ship, and how one gets there.

Source: Grafana HTTP API, "Dashboard": POST /api/dashboards/db, through the package grafana-client.
"""

import json
from pathlib import Path

from telemetry.errors import ConfigError, TransientError

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


def dashboards() -> list[Path]:
    """Return the dashboards that ship."""
    return sorted(FOLDER.glob("*.json"))


def push_dashboard(url: str, token: str, path: Path, *, folder: str = "") -> str:
    """Put a dashboard into Grafana in place of the one of its uid; return its path there.

    Raises ConfigError where the file is no dashboard, TransientError where Grafana does not take it.
    """
    try:
        from grafana_client import GrafanaApi
        from grafana_client.client import GrafanaException
        from requests import RequestException
    except ImportError as error:
        raise ConfigError(
            "grafana-client is not installed: pip install 'tocsin[grafana]', or provision "
            "deploy/grafana in Grafana itself"
        ) from error
    try:
        model = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: no JSON: {error}") from error
    if not (isinstance(model, dict) and model.get("uid") and model.get("title")):
        raise ConfigError(f"{path}: no dashboard: it needs uid and title")
    body = {"dashboard": model | {"id": None}, "overwrite": True, "message": "tocsin grafana push"}
    try:
        api = GrafanaApi.from_url(url, credential=token or None)
        told = api.dashboard.update_dashboard(body | ({"folderUid": folder} if folder else {}))
    except (GrafanaException, RequestException, ValueError) as error:
        raise TransientError(f"{url}: {error}") from error
    if not isinstance(told, dict) or not isinstance(told.get("url"), str):
        raise TransientError(f"{url} answered no dashboard")
    return str(told["url"])
