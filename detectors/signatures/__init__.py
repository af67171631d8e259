"""Detectors that look at several columns of a frame at once: silence, attack, scan, slow rise.

Each is a plain rule on arrays with its limits as named numbers. What a rule calls hard was stated by
the network itself and stands outside the alert budget; the others bring a p-value into it.

A series too young for a baseline of its own is held against its like: it must stand far above what
the busiest mature series of its view are expected to do.
"""
