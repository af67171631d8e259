"""VES events of network functions: alarms, samples, log lines, signs of life."""
