"""The database: how to connect, how to run a transaction, and the schema with its migrations."""
