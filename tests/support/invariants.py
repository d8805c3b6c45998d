"""The rules that the database must satisfy: those that `portclaim doctor` checks."""

from portclaim.common.db.invariants import RULES, violations

__all__ = ["RULES", "violations"]
