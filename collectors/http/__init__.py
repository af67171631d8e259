"""HTTP both ways, within limits: a small server for what is pushed, a client for what is asked."""
