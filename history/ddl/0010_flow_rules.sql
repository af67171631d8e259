-- FlowSpec: what a rule matches, and what is done to it.
alter table routes add column if not exists flow_rule String default '' codec(ZSTD(1));
alter table routes add column if not exists flow_actions String default '' codec(ZSTD(1));
