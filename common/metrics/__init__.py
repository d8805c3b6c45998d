"""Metrics for Prometheus: what is counted (catalogue), how (kinds), and where it is read (exporter)."""
