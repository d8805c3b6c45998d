"""Hypervisor drivers: how devices are attached to guests and detached. Each is loaded by its entry point."""
