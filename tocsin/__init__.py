"""Tocsin: reads a network's telemetry, learns what is normal, and says what is wrong and why."""

__version__ = "0.1.0"
