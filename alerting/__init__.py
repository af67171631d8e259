"""Anomalies to alarms, incidents and delivered alerts."""
