"""The schema that this version of the code needs.

Imports nothing, so that ``portclaim --version`` is quick.
"""

HEAD = "0003"
"""The newest revision in ``migrations/versions``; a test compares the two."""
