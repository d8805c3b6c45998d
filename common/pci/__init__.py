"""The PCI vocabulary and its rules: pure Python, no I/O, and nothing else of the project's."""
