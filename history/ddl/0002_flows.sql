-- Raw flow records, where history.flows is on. octets and packets as exported: times sampling_rate, over
-- kept_share, they stand for the traffic. file marks the insert.
create table flows (
    arrival_ns Int64 codec(Delta, ZSTD(1)),
    flow_start_ns Int64 codec(ZSTD(1)),
    flow_end_ns Int64 codec(ZSTD(1)),
    exporter IPv6 codec(ZSTD(1)),
    observation_domain_id UInt32 codec(ZSTD(1)),
    source IPv6 codec(ZSTD(1)),
    destination IPv6 codec(ZSTD(1)),
    source_port UInt16 codec(ZSTD(1)),
    destination_port UInt16 codec(ZSTD(1)),
    protocol UInt8 codec(ZSTD(1)),
    tcp_flags UInt16 codec(ZSTD(1)),
    ip_class_of_service UInt8 codec(ZSTD(1)),
    ingress_interface UInt32 codec(ZSTD(1)),
    egress_interface UInt32 codec(ZSTD(1)),
    octets UInt64 codec(ZSTD(1)),
    packets UInt64 codec(ZSTD(1)),
    sampling_rate UInt32 codec(ZSTD(1)),
    next_hop IPv6 codec(ZSTD(1)),
    source_as UInt32 codec(ZSTD(1)),
    destination_as UInt32 codec(ZSTD(1)),
    vlan_id UInt16 codec(ZSTD(1)),
    mpls_top_label UInt32 codec(ZSTD(1)),
    direction UInt8 codec(ZSTD(1)),
    forwarding_status UInt8 codec(ZSTD(1)),
    nat_event UInt8 codec(ZSTD(1)),
    ingress_vrf_id UInt32 codec(ZSTD(1)),
    egress_vrf_id UInt32 codec(ZSTD(1)),
    application_id UInt64 codec(ZSTD(1)),
    kept_share Float32 codec(ZSTD(1)),
    file UInt64 codec(ZSTD(1)),
    time DateTime64(3, 'UTC') alias fromUnixTimestamp64Milli(intDiv(arrival_ns, 1000000), 'UTC')
) engine = MergeTree
partition by toUInt32(intDiv(arrival_ns, 3600000000000))
order by (exporter, arrival_ns)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;
