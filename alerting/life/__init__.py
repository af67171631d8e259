"""The life of alarms, ours and foreign ones: raised, updated, cleared; collapsed, kept back, counted."""
