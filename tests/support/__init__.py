"""What tests are built from: real servers, services as processes, fleets, and what must be true of them."""

import portclaim.common.rpc  # noqa: F401 - chooses how threads are made, before oslo.messaging is imported anywhere
