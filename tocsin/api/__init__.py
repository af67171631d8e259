"""What the desk serves over HTTP: REST API, metrics page, SQL door."""
