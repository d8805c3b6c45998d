"""What two or more services share: configuration, PCI rules, the database, messages and events."""
