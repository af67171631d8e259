"""Any other system, file or upload, by a mapping file."""
