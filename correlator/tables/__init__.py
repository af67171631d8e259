"""Reference tables: what is known of the network besides its telemetry."""
