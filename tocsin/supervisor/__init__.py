"""The supervisor's process: which processes there are, started and kept running."""
