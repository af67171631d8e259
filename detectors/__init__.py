"""Frames to expected values, scores and anomalies, calibrated to an alert budget."""
