"""Tocsin: reads a network's telemetry, learns what is normal, and says what is wrong and why."""

__version__ = "0.1.0"
PACKAGES = (
    "telemetry", "runtime", "collectors", "correlator", "detectors", "history", "alerting", "tocsin",
)  # fmt: skip
