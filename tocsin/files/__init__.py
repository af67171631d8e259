"""Files of others as people have them: rows, times, series, alarms, topologies, planned works."""
