"""The services of Portclaim: one package each, none of which imports another."""
