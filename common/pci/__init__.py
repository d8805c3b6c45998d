"""PCI terms and rules: pure Python without I/O. It imports nothing else of the project."""
