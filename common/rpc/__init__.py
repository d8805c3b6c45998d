"""Calls between the services: messages, a typed client for each service, and what a server needs.

Importing this package chooses oslo.messaging's threading backend.
"""

import sys

from oslo_service import backend

# oslo.messaging would choose eventlet, which is deprecated, unless a backend is chosen before it is imported.
# A program that has imported oslo.messaging before, such as an API layer, has made its choice. For a client
# every choice is right.
if backend.get_backend_type() is None:
    # The libraries import eventlet only to look whether it is in use. A program that uses it has imported it
    # before anything else. In any other it costs 9 MB and a fifth of the start of a service.
    is_hidden = sys.modules.setdefault("eventlet", None) is None  # type: ignore[arg-type]
    backend.init_backend(backend.BackendType.THREADING)
    import oslo_messaging  # noqa: F401 - here the others look

    if is_hidden:
        del sys.modules["eventlet"]
