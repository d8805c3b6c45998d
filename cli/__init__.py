"""The operator's command line. It speaks RPC, as an API layer does; only ``db`` opens the database."""
