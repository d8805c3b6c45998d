"""Portclaim."""
