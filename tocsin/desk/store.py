"""Which store holds the history: the one place that names its classes."""

from pathlib import Path

from history.config import HistorySettings
from history.store import Store
from telemetry.errors import ConfigError


def open_store(settings: HistorySettings, state: Path) -> Store:
    """Return the store that the settings choose; what it needs is imported only then."""
    if settings.store == "clickhouse":
        try:
            from history.server_store import ServerStore
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"history.store = \"clickhouse\" needs {error.name}: pip install 'tocsin[core]'"
            ) from error
        return ServerStore(settings.clickhouse)
    from history.chdb_store import ChdbStore

    return ChdbStore(state / "history", memory_bytes_max=settings.memory_bytes_max)
