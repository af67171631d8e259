"""What was received, kept to be seen again: case files, replay, and the trace of an alert."""
