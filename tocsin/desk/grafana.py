"""Dashboards in Grafana: those that ship, and how one gets there.

Source: Grafana HTTP API, "Dashboard": POST /api/dashboards/db, through the package grafana-client.
"""

import json
from pathlib import Path
from urllib.parse import urlsplit

from telemetry.errors import ConfigError, TransientError

FOLDER = Path(__file__).parents[2] / "deploy" / "grafana" / "dashboards"


def dashboards() -> list[Path]:
    """Return the dashboards that ship."""
    return sorted(FOLDER.glob("*.json"))


def push_dashboard(url: str, token: str, path: Path, *, folder: str = "") -> str:
    """Put a dashboard into Grafana in place of the one of its uid; return its path there.

    Raises ConfigError where the file is no dashboard or the URL none, TransientError where Grafana does not
    take it.
    """
    _check_url(url)
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
    except GrafanaException as error:
        fix = ""
        if error.status_code in (401, 403):
            fix = "; --token-file must name the token of a service account that may edit dashboards"
        raise TransientError(f"{url}: {error}{fix}") from error
    except (RequestException, ValueError) as error:
        raise TransientError(
            f"{url} cannot be reached: {_reason(error)}; does a Grafana listen there?"
        ) from error
    if not isinstance(told, dict) or not isinstance(told.get("url"), str):
        raise TransientError(f"{url} answered no dashboard")
    return str(told["url"])


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        good = False
    if not good:
        raise ConfigError(f"{url!r} is no address of a Grafana; write https://grafana.example:3000")


def _reason(error: BaseException) -> str:
    """Return what lies at the bottom of an error, in the system's words."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(getattr(error, "strerror", None) or error)
