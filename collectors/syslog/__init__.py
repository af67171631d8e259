"""Syslog: datagrams and byte streams to log lines, their patterns and counts, events and alarms."""
