-- The digest also counts what only probation held back.
create or replace view digest as
select toStartOfHour(toDateTime(intDiv(tick_start_ns, 1000000000))) as hour, view, detector, measure,
       count() as findings, uniqExact(series_id) as series, max(score) as highest_score,
       countIf(disposition = 'would') as would
from anomalies final
where disposition in ('digest', 'would')
group by hour, view, detector, measure;
