"""Calls between the services: messages, one typed client per service, and what a server needs."""

import warnings

from oslo_service import backend

# Libraries beneath oslo.messaging still look whether eventlet is in use; nobody has to hear of that.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")
# Before oslo.messaging is imported, or it would choose eventlet, which is on its way out. A program that has
# imported it already, like an API layer of its own, has chosen, and for calling out any choice will do.
if backend.get_backend_type() is None:
    backend.init_backend(backend.BackendType.THREADING)
