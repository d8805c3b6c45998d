"""The conductor service: its endpoint, and how a worker starts and stops."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import sqlalchemy as sa
from oslo_config import cfg

from portclaim.common import log_context, tracing
from portclaim.common.db import outbox
from portclaim.common.db.listener import NotificationListener
from portclaim.common.db.pruning import Pruning
from portclaim.common.db.transaction import connect, in_transaction
from portclaim.common.errors import InvalidConfiguration, PortclaimError
from portclaim.common.metrics.catalogue import STEP_ANSWERS
from portclaim.common.periodic import Periodic
from portclaim.common.rpc.agent_messages import (
    Holdings,
    HoldingsRequest,
    InventoryAnswer,
    InventoryReport,
    SignOfLife,
    Step,
    StepResult,
    StepResults,
)
from portclaim.common.rpc.collector import Reader, collector
from portclaim.common.rpc.compute_agent import ComputeAgentClient
from portclaim.common.rpc.conductor import (
    CALLS,
    FULL_REPORTS,
    SIGNS_OF_LIFE,
    UNSIGNED,
    UNSIGNED_WORK,
    ConductorClient,
)
from portclaim.common.rpc.endpoint import Endpoint, Entrance, exposed, finish, server
from portclaim.common.rpc.transport import transport
from portclaim.common.rpc.trust_messages import Enrolled, Enrolment, KeysRequest, Rotation, ServicesKeys
from portclaim.common.trust.arrivals import Arrivals, Bounds
from portclaim.common.trust.caller import caller
from portclaim.common.trust.gate import HostGate, Policy
from portclaim.common.trust.services_key import ServicesKey
from portclaim.services.conductor import expiry, host_counter, inventory, lifecycle
from portclaim.services.conductor.cut_off import CutOff
from portclaim.services.conductor.enrolment import Registrar
from portclaim.services.conductor.grouped_answers import GroupedAnswers
from portclaim.services.conductor.host_key_ring import HostKeyRing
from portclaim.services.conductor.publisher import Exchange, Publisher
from portclaim.services.conductor.relay import Relay
from portclaim.services.conductor.signs_of_life import SignsOfLife

LOG = logging.getLogger(__name__)

# Seconds between two looks for new events. There is no NOTIFY for events, because it would make claims commit
# one by one. A worker that has recorded an agent's answer looks at once, because a caller may wait for it.
# While many answers come, it looks only so often, and publishes together what was recorded meanwhile.
_EVENTS_PAUSE = 0.5
_EVENTS_LEAST_PAUSE = 0.1
_EXPIRY_PAUSE = 10.0  # seconds, at most. So an expiry may be so much late
_PRUNE_PAUSE = 3600.0
_KEEP_REFUSALS = timedelta(days=7)
_REMOVE_OLD_REFUSALS = sa.text("SELECT remove_old_refusals(:keep)")
# Full reports in hand at the same time. Each takes a core for a while, and claims need some of it.
_FULL_REPORTS = 2
# Signs of life of so long are recorded together. So a host may be shown as silent for so much longer.
_SIGNS_PAUSE = 1.0
# The more hosts have changed since they were counted, the more a refusal reads.
_COUNT_PAUSE = 1.0

# Seconds between two attempts to cut a host off, where the first one failed.
_CUT_OFF_PAUSE = 1.0


class ConductorEndpoint(Endpoint):
    """What agents call; see :class:`portclaim.common.rpc.conductor.ConductorClient`."""

    def __init__(
        self,
        engine: sa.Engine,
        agent_down_after: float,
        guest_within: float,
        on_answer: Callable[[], None] = lambda: None,
        note_sign: Callable[[SignOfLife], None] = lambda _sign: None,
    ) -> None:
        self._engine = engine
        self._agent_down_after = agent_down_after
        self._guest_within = guest_within
        self._answers = GroupedAnswers(engine, guest_within)
        self._on_answer = on_answer
        self._note_sign = note_sign
        self.registrar = Registrar(engine, None)

    @exposed(InventoryReport)
    def report_inventory(self, report: InventoryReport) -> InventoryAnswer:
        return inventory.apply(self._engine, report, self._agent_down_after, caller().number)

    @exposed(SignOfLife)
    def show_life(self, sign: SignOfLife) -> None:
        self._note_sign(sign)

    @exposed(StepResult)
    def step_done(self, result: StepResult) -> None:
        with self._answering(result.host):
            self._answers.step_done(result)
        STEP_ANSWERS.count(result.outcome)
        LOG.info("host %s has answered step %s: %s", result.host, result.step, result.outcome)

    @exposed(StepResults)
    def steps_done(self, results: StepResults) -> None:
        with self._answering(results.host), ExitStack() as spans:
            for answer in results.answers:
                parent = tracing.of_claim(answer.claim_id)
                spans.enter_context(tracing.span("record answer", parent=parent))
            refused = lifecycle.steps_done(self._engine, results, self._guest_within)
        for answer in results.answers:
            STEP_ANSWERS.count(answer.outcome)
            with log_context.about(claim_id=answer.claim_id):
                LOG.info("host %s has answered step %s: %s", results.host, answer.step, answer.outcome)
        for claim_id in refused:
            LOG.info(
                "the answer of host %s for claim %s is not recorded: it is not for the last step of the "
                "claim, or the claim is not on this host",
                results.host,
                claim_id,
            )

    @exposed(HoldingsRequest)
    def holdings(self, request: HoldingsRequest) -> Holdings:
        number = caller().number
        return in_transaction(self._engine, lambda c: lifecycle.holdings(c, request, number))

    @exposed(Enrolment)
    def enrol(self, wanted: Enrolment) -> Enrolled:
        return self.registrar.enrol(wanted)

    @exposed(Rotation)
    def rotate_key(self, wanted: Rotation) -> None:
        self.registrar.rotate(wanted)

    @exposed(KeysRequest)
    def services_keys(self, request: KeysRequest) -> ServicesKeys:
        return self.registrar.services_keys(request)

    @contextmanager
    def _answering(self, host: str) -> Iterator[None]:
        try:
            yield
        except PortclaimError as error:  # the agent may not wait for it
            LOG.info("the answer of host %s is not recorded: %s", host, error)
            raise
        self._on_answer()


class Conductor:
    """One worker: answers agents, relays steps, expires claims, counts hosts, prunes history, publishes."""

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        if not conf.database.connection:
            raise InvalidConfiguration("[database] connection is not set: the conductor needs the database")
        self._conf = conf
        self._services_key = ServicesKey(conf)
        self._is_listening = False

    def start(self) -> None:
        conf = self._conf
        self._bus = transport(conf)
        self._agents = ComputeAgentClient(self._bus, conf, signer=self._services_key.signer())
        # One connection for each message in hand, and one for each periodic task and for the host keys.
        self._engine = connect(
            conf.database.connection, conf.rpc.threads + _FULL_REPORTS + 8, conf.database.answer_within
        )
        options = conf.conductor
        self._signs = SignsOfLife(self._engine, self._agents)
        endpoint = ConductorEndpoint(
            self._engine,
            options.agent_down_after,
            options.guest_within,
            self._wake_publisher,
            self._signs.note,
        )
        endpoint.registrar = Registrar(self._engine, self._services_key)
        gate = HostGate(
            ConductorClient.topic,
            HostKeyRing(self._engine),
            Policy(
                conf.trust.require,
                conf.trust.max_age,
                conf.trust.host_rate,
                conf.rpc.threads,
                UNSIGNED,
                CALLS,
                UNSIGNED_WORK,
            ),
        )
        topic = ConductorClient.topic
        self._cut_off = CutOff(conf)
        cutting = Periodic("cutting off of hosts", self._cut_off.work, _CUT_OFF_PAUSE)

        def cut_off(host: str) -> None:
            self._cut_off.note(host)
            cutting.wake()

        trust = conf.trust
        bounds = Bounds(trust.host_rate, max(conf.rpc.threads - 2, 2), trust.cut_off_after)
        arrivals = Arrivals(topic, bounds, cut_off)
        self._server = server(self._bus, topic, conf.host, endpoint, Entrance(gate=gate, arrivals=arrivals))
        self._reports = server(
            self._bus, topic, conf.host, endpoint, Entrance(FULL_REPORTS, gate, arrivals=arrivals)
        )
        signs = Reader(SignOfLife, self._signs.note, gate, arrivals)
        self._life = collector(self._bus, conf, SIGNS_OF_LIFE, signs)
        resend_after, expire_after = conf.conductor.resend_after, conf.conductor.expire_after
        relay = Relay(self._engine, self._send, resend_after, conf.conductor.max_sends)
        self._relay = Periodic("relay", relay.work, resend_after / 5)
        self._listener = NotificationListener(self._engine, outbox.CHANNEL, self._relay.wake)
        self._periodic = [self._relay, cutting]
        limits = [limit / 10 for limit in (expire_after, options.guest_within) if limit]
        self._periodic.append(Periodic("expiry", self._expire, min([*limits, _EXPIRY_PAUSE])))
        if prune_after := conf.conductor.prune_after:
            pruning = Pruning(self._engine, timedelta(days=prune_after))
            self._periodic.append(Periodic("pruning", pruning.work, _PRUNE_PAUSE))
            self._periodic[-1].wake()
        self._periodic.append(Periodic("recorder of signs of life", self._signs.record, _SIGNS_PAUSE))
        self._periodic.append(Periodic("counting of hosts", self._count_hosts, _COUNT_PAUSE))
        self._periodic.append(Periodic("removal of old refusals", self._remove_old_refusals, _PRUNE_PAUSE))
        self._periodic[-1].wake()
        self._exchange: Exchange | None = None
        self._publisher: Periodic | None = None
        if conf.conductor.publish_events:
            self._exchange = Exchange(conf)
            publisher = Publisher(self._engine, self._exchange.publish, self._wake_publisher)
            self._publisher = Periodic(
                "publisher of events", publisher.work, _EVENTS_PAUSE, least_pause=_EVENTS_LEAST_PAUSE
            )
            self._periodic.append(self._publisher)
        self._life.start()
        self._reports.start(override_pool_size=_FULL_REPORTS)
        self._server.start(override_pool_size=self._conf.rpc.threads)
        self._is_listening = True
        for each in self._periodic:
            each.start()
        self._listener.start()

    def reload(self, conf: cfg.ConfigOpts) -> None:
        """Do nothing: a conductor does not read ``[pci]``."""

    def stop(self) -> None:
        if not self._is_listening:  # it still waits for the broker
            return
        finish(self._server, self._reports, self._life)
        self._listener.end()
        for each in self._periodic:
            each.end()
        self._cut_off.close()
        if self._exchange is not None:
            self._exchange.close()
        self._bus.cleanup()
        self._engine.dispose()

    def _expire(self) -> bool:
        after = self._conf.conductor.expire_after or None
        expired = in_transaction(self._engine, lambda connection: expiry.expire(connection, after))
        if expired:
            self._relay.wake()
            self._wake_publisher()
        return bool(expired)

    def _count_hosts(self) -> bool:
        host_counter.count_hosts(self._engine)
        return False

    def _remove_old_refusals(self) -> bool:
        facts = {"keep": _KEEP_REFUSALS}
        in_transaction(self._engine, lambda c: c.execute(_REMOVE_OLD_REFUSALS, facts))
        return False

    def _wake_publisher(self) -> None:
        if self._publisher is not None:
            self._publisher.wake()

    def _send(self, host: str, step: Step) -> None:
        self._agents.at(host).send(step)
