"""Measurements: each file prints one table and keeps it as JSON."""
