"""From a cluster's objects to the two documents of each namespace that its sidecars read (ADR 22)."""
