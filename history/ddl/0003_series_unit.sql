-- What the values of a series are counted in, where it has one measure.
alter table series add column if not exists unit String default '';
