"""Cause rules: the anomalies of a tick become claims, one for each fault."""
