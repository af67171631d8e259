-- Ticks as they closed: one row a series and measure. value is a rate per second for counts and sums.
create table frames (
    tick_end_ns Int64 codec(Delta, ZSTD(1)),
    tick_seconds Float32 codec(ZSTD(1)),
    view LowCardinality(String),
    measure LowCardinality(String),
    series_id UInt64 codec(ZSTD(1)),
    value Float64 codec(ZSTD(1)),
    expected Float32 codec(ZSTD(1)),
    lower Float32 codec(ZSTD(1)),
    upper Float32 codec(ZSTD(1)),
    score Float32 codec(ZSTD(1)),
    flags UInt8 codec(ZSTD(1)),
    lost_share Float32 codec(ZSTD(1))
) engine = MergeTree
partition by toDate(intDiv(tick_end_ns - 1, 1000000000))
order by (view, measure, series_id, tick_end_ns)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Rollups, built by the writer from closed ticks: bucket is its start in s, period its length in s.
create table rollups (
    period UInt32,
    bucket UInt32 codec(Delta, ZSTD(1)),
    view LowCardinality(String),
    measure LowCardinality(String),
    series_id UInt64 codec(ZSTD(1)),
    count UInt64 codec(ZSTD(1)),
    sum Float64 codec(ZSTD(1)),
    sum_squares Float64 codec(ZSTD(1)),
    min Float64 codec(ZSTD(1)),
    max Float64 codec(ZSTD(1)),
    last Float64 codec(ZSTD(1)),
    p95 Float64 codec(ZSTD(1)),
    revision UInt32
) engine = ReplacingMergeTree(revision)
partition by (period, toYYYYMM(toDateTime(bucket)))
order by (period, view, measure, series_id, bucket)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

create table series (
    series_id UInt64,
    entity_id UInt64,
    view LowCardinality(String),
    entity String,
    key String
) engine = ReplacingMergeTree
order by (view, series_id)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Every change of every alarm.
create table alarms (
    changed_ns Int64,
    alarm_id UInt64,
    raised_ns Int64,
    cleared_ns Int64,
    state LowCardinality(String),
    severity LowCardinality(String),
    kind LowCardinality(String),
    event_type LowCardinality(String),
    probable_cause LowCardinality(String),
    entity_id UInt64,
    entity String,
    specific_problem String,
    additional_text String,
    source LowCardinality(String),
    foreign_id String,
    explain String,
    occurrence UInt32
) engine = ReplacingMergeTree
partition by toYYYYMM(toDateTime(intDiv(changed_ns, 1000000000)))
order by (alarm_id, changed_ns, state)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

create table incidents (
    changed_ns Int64,
    incident_id UInt64,
    opened_ns Int64,
    closed_ns Int64,
    severity LowCardinality(String),
    title String,
    causes String,
    alarms String
) engine = ReplacingMergeTree
order by (incident_id, changed_ns)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What detectors found, also what did not fit the alert budget.
create table anomalies (
    tick_start_ns Int64 codec(Delta, ZSTD(1)),
    tick_seconds Float32,
    view LowCardinality(String),
    series_id UInt64,
    measure LowCardinality(String),
    detector LowCardinality(String),
    disposition LowCardinality(String),
    actual Float64,
    expected Float64,
    lower Float64,
    upper Float64,
    score Float64,
    p_value Float64,
    since_ns Int64,
    detail String
) engine = ReplacingMergeTree
partition by toDate(intDiv(tick_start_ns, 1000000000))
order by (tick_start_ns, view, series_id, detector, measure)
settings non_replicated_deduplication_window = 1000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The digest: findings over the budget, one row per hour and class.
create view digest as
select toStartOfHour(toDateTime(intDiv(tick_start_ns, 1000000000))) as hour, view, detector, measure,
       count() as findings, uniqExact(series_id) as series, max(score) as highest_score
from anomalies final
where disposition = 'digest'
group by hour, view, detector, measure;
