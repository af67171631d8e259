"""The desk process and its teacher: the history, and what is asked of it."""
