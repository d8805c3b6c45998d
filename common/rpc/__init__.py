"""Calls between the services: messages, a typed client for each service, and what a server needs.

Importing this package chooses oslo.messaging's threading backend.
"""

import warnings

from oslo_service import backend

# Libraries beneath oslo.messaging still import eventlet to look whether it is in use. Its warning helps
# nobody.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
# oslo.messaging would choose eventlet, which is deprecated, unless a backend is chosen before it is imported.
# A program that has imported oslo.messaging before, such as an API layer, has made its choice. For a client
# every choice is right.
if backend.get_backend_type() is None:
    backend.init_backend(backend.BackendType.THREADING)
