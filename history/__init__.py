"""The store: ticks, rollups and alarms on ClickHouse, embedded or as a server."""
