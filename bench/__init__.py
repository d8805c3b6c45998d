"""Benchmarks: each measures Portclaim beside the limit of what it stands on, in one run on one machine."""
