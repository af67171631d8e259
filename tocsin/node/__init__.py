"""The node process and its shards: everything between sockets and outbox that must go on."""
