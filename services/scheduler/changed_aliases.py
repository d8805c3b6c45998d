"""Tell the claims that wait for an alias which has changed since they were queued."""

from __future__ import annotations

import logging

import sqlalchemy as sa

from portclaim.common.pci.alias import Aliases
from portclaim.common.pci.extra_specs import ALIAS

LOG = logging.getLogger(__name__)

_WAITING = sa.text("""
    SELECT c.id, c.request -> 'extra_specs' ->> :alias
      FROM waiting_claims w JOIN claims c ON c.id = w.id
     WHERE c.request -> 'extra_specs' ->> :alias IS NOT NULL
""")

_TELL = sa.text("""
    UPDATE claims SET reason = :reason, updated_at = now()
     WHERE id = :claim_id AND status = 'waiting' AND reason IS DISTINCT FROM :reason
""")


def tell(connection: sa.Connection, before: Aliases, after: Aliases) -> None:
    """Write the reason into each waiting claim whose alias differs. It goes when the claim is served."""
    reasons = _reasons(before, after)
    if not reasons:
        return
    for claim_id, asked in connection.execute(_WAITING, {"alias": ALIAS}).all():
        names = (part.partition(":")[0].strip() for part in asked.split(","))
        told = [reasons[name] for name in dict.fromkeys(names) if name in reasons]
        if told:
            LOG.warning("waiting claim %s: %s", claim_id, "; ".join(told))
            connection.execute(_TELL, {"claim_id": claim_id, "reason": "; ".join(told)})


def _reasons(before: Aliases, after: Aliases) -> dict[str, str]:
    """What to say of each alias that has changed or is gone."""
    reasons = {}
    for name, alias in before.by_name.items():
        now = after.by_name.get(name)
        if now is None:
            reasons[name] = (
                f"the alias {name} is no longer defined, so the claim cannot be served: release it, or "
                "define the alias again"
            )
        elif (before.spec_of(alias), alias.numa_policy) != (after.spec_of(now), now.numa_policy):
            reasons[name] = f"the alias {name} has changed since the claim was queued: the new one counts"
    return reasons
