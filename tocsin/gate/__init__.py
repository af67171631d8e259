"""The gate process: what needs HTTP or slow peers, away from the node."""
