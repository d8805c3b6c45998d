"""How devices reach a guest and come back: one driver per hypervisor, loaded by entry point."""
