"""Checks the database and the hypervisors while all clients are paused."""

import time
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

from tests.chaos.cycles import Cycle
from tests.chaos.moves import Moving
from tests.chaos.site import PORTS, VFS, Site
from tests.support.invariants import violations
from tests.support.solver import Parents

PATIENCE = 20.0  # seconds until all open steps must be done
ACTIONS = ("prepare", "attach", "unplug", "detach", "restore")

_AWAITED = """
    SELECT n.host || ': step ' || o.step || ', ' || o.action || ', of claim ' || o.claim_id
      FROM outbox o JOIN claims c ON c.id = o.claim_id JOIN compute_nodes n ON n.id = c.compute_node_id
     WHERE n.host = ANY(:hosts)
"""
_NOT_FREE = f"""
    SELECT n.host || ' ' || d.address || ' is ' || d.status
      FROM pci_devices d JOIN compute_nodes n ON n.id = d.compute_node_id
     WHERE n.host = ANY(:hosts) AND d.status <> 'available'
     UNION ALL
    SELECT n.host || ' has ' || count(d.id) || ' devices'
      FROM compute_nodes n LEFT JOIN pci_devices d ON d.compute_node_id = n.id
     WHERE n.host = ANY(:hosts) GROUP BY n.id HAVING count(d.id) <> {PORTS * (1 + VFS)}
"""
_CLAIMS = """
    SELECT c.id, c.status, array_remove(array_agg(n.host || ' ' || d.address), NULL),
           EXISTS (SELECT FROM claim_events e WHERE e.claim_id = c.id AND e.to_status = 'allocated')
      FROM claims c
      LEFT JOIN claim_devices cd ON cd.claim_id = c.id
      LEFT JOIN pci_devices d ON d.id = cd.device_id
      LEFT JOIN compute_nodes n ON n.id = d.compute_node_id
     WHERE c.id = ANY(:ids)
     GROUP BY c.id
"""
_STRANGE = "SELECT id FROM claims WHERE created_at >= :since AND NOT id = ANY(:known)"
_MOVES = """
    SELECT m.target_claim_id, m.status, m.kind
      FROM claim_moves m
     WHERE m.target_claim_id = ANY(:ids)
"""
# No device can go with its guest, and clients migrate a guest only when the move is ready.
_ON_TWO_HOSTS = """
    SELECT m.target_claim_id
      FROM claim_moves m
      JOIN claim_events e ON e.claim_id = m.source_claim_id
                          AND e.cause = 'moved to claim ' || m.target_claim_id
     WHERE m.target_claim_id = ANY(:ids) AND m.kind = 'live' AND e.from_status <> 'prepared'
"""
_PARENTS = """
    SELECT n.host, d.address, pf.address
      FROM pci_devices d
      JOIN pci_devices pf ON pf.id = d.parent_id
      JOIN compute_nodes n ON n.id = d.compute_node_id
"""


def may_be_done(done: Mapping[str, int], was_attached: bool, live_moves: int) -> bool:
    """May a hypervisor have done this, so many times, with a device of a claim that has ended?

    ``was_attached``: the claim was allocated once. ``live_moves``: how many live moves it has been the source
    of. Each of them unplugs the device at most once.
    """
    prepared, attached, unplugged = done["prepare"], done["attach"], done["unplug"]
    return (
        prepared == done["detach"] + done["restore"] <= 1
        and attached == unplugged + done["detach"]
        and unplugged <= live_moves
        and (attached > 0 or not was_attached)
    )


class Verdict:
    """Checks what is new since the last check, and replays what the hypervisors did, effect by effect."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._parents = {(host, vf): pf for host, vf, pf in site.postgresql.ask(_PARENTS)}
        self._since = self._now()
        self._known: set[Any] = set()
        self._unchecked: list[Cycle] = []
        self._unchecked_moves: list[Moving] = []
        self._seen = dict.fromkeys(site.hosts, 0)  # the last effect of each hypervisor
        self._guests: dict[tuple[str, str], str] = {}  # device -> claim
        self._done: Counter[tuple[str, str, str]] = Counter()  # claim, action, device
        self._told: set[str] = set()

    @property
    def parents(self) -> Parents:
        """All devices, each with the PF of a VF."""
        pfs = {(host, pf): None for (host, _), pf in self._parents.items()}
        return pfs | {(host, vf): (host, pf) for (host, vf), pf in self._parents.items()}

    def check(
        self, over: Collection[Cycle], aside: Collection[Cycle], moved: Collection[Moving]
    ) -> list[str]:
        """The faults that are new. ``over``, ``moved``: the cycles and moves that ended since the last check.

        ``aside``: the open cycles on hosts that cannot be reached.
        """
        hosts = [host for host in self._site.hosts if host not in self._site.cut]
        self._unchecked += over
        self._unchecked_moves += moved
        self._known = {cycle.claim_id for cycle in (*self._unchecked, *aside)} | self._known
        wrong = self._unfinished(hosts)
        with self._site.postgresql.engine.connect() as connection:
            wrong += [f"{rule}: {what}" for rule, what in violations(connection)]
        wrong += self._strange_claims()
        wrong += self._follow_hypervisors(hosts)
        wrong += self._compare(hosts)
        wrong += self._compare_moves(hosts)
        wrong += [surprise for service in self._site.all_services() for surprise in service.surprises]
        new = [each for each in dict.fromkeys(wrong) if each not in self._told]
        self._told.update(new)
        return new

    def _unfinished(self, hosts: list[str]) -> list[str]:
        """Steps that were not done, and devices that are lost."""
        deadline = time.monotonic() + PATIENCE
        while True:
            ask = self._site.postgresql.ask
            left = [what for query in (_AWAITED, _NOT_FREE) for (what,) in ask(query, hosts=hosts)]
            if not left or time.monotonic() > deadline:
                return [f"after {PATIENCE} s {what}" for what in left]
            time.sleep(0.05)

    def _strange_claims(self) -> list[str]:
        """Claims that no client has made."""
        known, since = list(self._known), self._since
        self._since = self._now()
        strange = self._site.postgresql.ask(_STRANGE, since=since, known=known)
        return [f"no client has made claim {claim_id}" for (claim_id,) in strange]

    def _follow_hypervisors(self, hosts: list[str]) -> list[str]:
        """Replay what each hypervisor did, and check whether it was possible."""
        wrong = []
        for host in hosts:
            query = "SELECT id, claim_id, action, address FROM effects WHERE id > ? ORDER BY id"
            for number, claim, action, address in self._site.records(query, [host], self._seen[host])[host]:
                self._seen[host] = number
                self._done[claim, action, f"{host} {address}"] += 1
                if action == "prepare":
                    wrong += self._prepare(host, address, claim)
                    continue
                if self._guests.get((host, address)) != claim:
                    wrong.append(f"{host} {address}: {action} for claim {claim}, which did not have it")
                if action in {"detach", "restore"}:
                    self._guests.pop((host, address), None)
        query = "SELECT address, claim_id FROM attachments UNION ALL SELECT address, claim_id FROM prepared"
        for host, rows in self._site.records(query, hosts).items():
            wrong += [f"{host} {address} is still held for claim {claim}" for address, claim in rows]
        return wrong

    def _prepare(self, host: str, address: str, claim: str) -> list[str]:
        kin = {address, self._parents.get((host, address), address)}
        kin |= {vf for (of, vf), pf in self._parents.items() if (of, pf) == (host, address)}
        holders = {other: self._guests[host, other] for other in kin if (host, other) in self._guests}
        self._guests[host, address] = claim
        return [f"{host} {address} was given to claim {claim} beside {holders}"] if holders else []

    def _compare(self, hosts: list[str]) -> list[str]:
        """Compare the answers to clients with the database and with the hypervisors."""
        ready = [cycle for cycle in self._unchecked if cycle.host in hosts]
        self._unchecked = [cycle for cycle in self._unchecked if cycle.host not in hosts]
        rows = self._site.postgresql.ask(_CLAIMS, ids=[cycle.claim_id for cycle in ready])
        claims = {claim_id: rest for claim_id, *rest in rows}
        wrong = []
        for cycle in ready:
            status, devices, was_attached = claims.get(cycle.claim_id, ("lost", [], False))
            ends = {"released", "failed"} if cycle.may_fail else {"released"}
            if cycle.statuses[-1] == "expired":
                ends = {"expired"}
            if status not in ends or frozenset(devices) != cycle.devices:
                wrong.append(
                    f"claim {cycle.claim_id} is {status} with {devices}, and not released with "
                    f"{cycle.devices}"
                )
            for device in devices:
                done = {
                    action: self._done.pop((str(cycle.claim_id), action, device), 0) for action in ACTIONS
                }
                if not may_be_done(done, was_attached, cycle.live_moves):
                    wrong.append(f"{device}: the hypervisor did {done} for claim {cycle.claim_id}")
        wrong += [f"no claim explains {effect}" for effect in self._done if effect[2].split()[0] in hosts]
        return wrong

    def _compare_moves(self, hosts: list[str]) -> list[str]:
        """Compare what clients know of the moves with the database.

        A move whose claims are both on hosts that cannot be reached has not ended: nobody has released one.
        """
        ready = [m for m in self._unchecked_moves if {m.source.host, m.target.host} & {*hosts}]
        self._unchecked_moves = [move for move in self._unchecked_moves if move not in ready]
        ids = [move.claim_id for move in ready]
        rows = self._site.postgresql.ask(_MOVES, ids=ids)
        moves = {claim_id: rest for claim_id, *rest in rows}
        wrong = []
        for move in ready:
            status, kind = moves.get(move.claim_id, ("lost", move.kind))
            if status not in move.possible_ends() or kind != move.kind:
                wrong.append(
                    f"the {move.kind} move to claim {move.claim_id} ({move.fate}) is {kind}, {status}"
                )
        on_two_hosts = self._site.postgresql.ask(_ON_TWO_HOSTS, ids=ids)
        wrong += [
            f"a guest had devices of two hosts in the move to {claim_id}" for (claim_id,) in on_two_hosts
        ]
        return wrong

    def _now(self) -> Any:
        return self._site.postgresql.ask("SELECT now()")[0][0]
