"""Calls between the services: messages, one typed client per service, and what a server needs."""
