"""Stories: what a network engineer writes in YAML, played to the alerting stage and held against what must be so."""
