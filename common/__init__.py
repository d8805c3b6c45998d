"""What two or more services of Portclaim share: vocabulary, configuration, database, messages."""
