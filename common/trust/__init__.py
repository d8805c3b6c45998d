"""Who has sent a message: keys, signatures, and what a service does with a message of somebody else."""
