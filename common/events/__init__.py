"""Events: what they contain, and a stream of them for consumers."""

import portclaim.common.rpc  # noqa: F401  (it chooses oslo.messaging's backend before that is imported)
