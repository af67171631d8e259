"""What was received, kept to be seen again: the raw ring, case files, replay, and the trace of an alert."""
