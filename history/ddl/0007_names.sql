-- Names that senders give to numbers (interfaces, VRFs, applications, samplers), and templates of log
-- patterns: key is the pattern_id of `logs`, value the pattern it became part of, else 0.
create table names (
    exporter_address IPv6 default toIPv6('::'),
    table LowCardinality(String),
    key UInt64,
    name String,
    value UInt64,
    observation_domain_id UInt32,
    arrival_ns Int64
) engine = ReplacingMergeTree(arrival_ns)
order by (table, exporter_address, observation_domain_id, key)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;
