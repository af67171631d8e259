"""The values that travel through Tocsin: schemas, batches, series identity, wire format, errors."""
