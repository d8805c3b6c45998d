"""Every metric that workers count. The reference page is made from this list."""

from __future__ import annotations

from portclaim.common.metrics.kinds import Counter

_REASON = "why not: the filter that left no device, or quota, conflict or invalid; empty: it was made"

CLAIMS = Counter(
    "claims_total",
    "Claims that callers asked for, by what they got. A call that is made again counts again.",
    {
        "outcome": "claimed, waiting (in a queue), refused, or error (the caller may call again)",
        "reason": _REASON,
    },
    services=["scheduler"],
)
