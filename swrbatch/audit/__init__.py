"""Audit: CTS traces in, checked against the catalog, out as Parquet; and the store's own events, verified and exported."""
