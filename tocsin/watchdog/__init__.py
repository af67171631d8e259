"""The watchdog process: says when the node is blind; shares nothing with it but a socket."""
