"""SNMP: notifications (traps, informs) as alarms, and polling."""
