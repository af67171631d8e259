"""What was received, to be seen again: captures as records, case files, replay, the trace of an alert."""
