"""What alerting knows: alarms, incidents, what kind of trouble each states, and where it is."""
