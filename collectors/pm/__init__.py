"""3GPP performance measurement files: counters and KPIs as slow samples."""
