"""The machinery: component contract, clock, kernels, metrics, journal, bus, settings, supervision."""
