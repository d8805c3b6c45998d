"""The parts of a server whose CPU time is measured, in the order of the tables."""

SERVER_PARTS = ("api", "scheduler", "conductor", "placement", "rabbitmq", "postgresql")
