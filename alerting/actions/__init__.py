"""Actions: sinks that do something about an alarm and undo it when the alarm is over.

An action is a sink, so the outbox gives it order, retries, approval, audit and dead letters (ADR 0041).
"""
