"""Exact matching: which free devices of one host serve which PCI requests.

A greedy choice, as Nova makes it, can fail where a solution exists. This one finds a solution whenever there
is one:

1. Hall's theorem (P. Hall, 1935): all requests can be served if and only if every subset of them has at least
   as many suitable devices as it asks for. :mod:`.subsets` keeps that surplus for all 2^R subsets in one
   integer.
2. A port is given whole or in VFs, never both, so each port adds one of two supplies. To choose for all ports
   is hard in general (it contains exact cover). :mod:`.port_modes` groups ports that are alike.
3. :mod:`.search` tries all choices at once, as bits. Each subset that falls short removes all choices that
   make it fall short. What a failed search learns is kept as a nogood, as in constraint programming.
4. Where there are too many kinds of ports, Lagrangian relaxation (:mod:`.lagrangian`) bounds the search.
5. :mod:`.assignment` then takes for each request the devices that it prefers, one by one, as long as the
   other requests can still be served.
"""

from portclaim.common.pci.matching.assignment import FreeDevice, assign

__all__ = ["FreeDevice", "assign"]
