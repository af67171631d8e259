-- When a tick closed: its end and the lateness of its view. Ticks are stored in this order.
alter table frames add column if not exists closed_ns Int64 default tick_end_ns codec(Delta, ZSTD(1));

-- Log records as they came.
create table logs (
    time_ns Int64 codec(ZSTD(1)),
    arrival_ns Int64 codec(Delta, ZSTD(1)),
    host LowCardinality(String),
    facility UInt8 codec(ZSTD(1)),
    severity UInt8 codec(ZSTD(1)),
    app LowCardinality(String),
    pattern_id UInt64 codec(ZSTD(1)),
    variables String codec(ZSTD(1)),
    message String codec(ZSTD(1)),
    event LowCardinality(String),
    message_id LowCardinality(String),
    process_id String codec(ZSTD(1)),
    structured_data String codec(ZSTD(1)),
    novelty UInt8 codec(ZSTD(1)),
    time DateTime64(3, 'UTC') alias fromUnixTimestamp64Milli(intDiv(time_ns, 1000000), 'UTC')
) engine = MergeTree
partition by toDate(intDiv(arrival_ns, 1000000000))
order by (host, arrival_ns)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- BGP announcements and withdrawals as BMP told them.
create table routes (
    time_ns Int64 codec(ZSTD(1)),
    arrival_ns Int64 codec(Delta, ZSTD(1)),
    peer_address IPv6 codec(ZSTD(1)),
    prefix IPv6 codec(ZSTD(1)),
    prefix_length UInt8 codec(ZSTD(1)),
    withdrawn UInt8 codec(ZSTD(1)),
    as_path_hash UInt64 codec(ZSTD(1)),
    as_path_length UInt16 codec(ZSTD(1)),
    origin_as UInt32 codec(ZSTD(1)),
    communities_hash UInt64 codec(ZSTD(1)),
    time DateTime64(3, 'UTC') alias fromUnixTimestamp64Milli(intDiv(time_ns, 1000000), 'UTC')
) engine = MergeTree
partition by toDate(intDiv(arrival_ns, 1000000000))
order by (prefix, prefix_length, arrival_ns)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;
