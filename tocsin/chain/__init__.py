"""The deterministic chain from datagrams to alarms: the same code live, in a shard, and in replay."""
