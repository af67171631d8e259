"""Bytes to batches: a listener (I/O) and a pure decoder for each protocol."""
