"""The demo network: a simulated carrier that exports real flow datagrams and has real faults."""
