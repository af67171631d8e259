"""Incidents: alarms with one cause; how they are grouped, why it is that cause, what it touches."""
