"""Alarms of other managers: Netcool, Spectrum, Alertmanager, TMF642 systems."""
