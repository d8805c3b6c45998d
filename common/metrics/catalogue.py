"""Every metric that workers count. The reference page is made from this list, and a test reads them all."""

from __future__ import annotations

from portclaim.common.metrics.kinds import Counter, Gauge, Histogram

_SCHEDULER = ("scheduler",)
_CONDUCTOR = ("conductor",)
_AGENT = ("compute_agent",)
_API = ("api",)
_ON_DATABASE = ("scheduler", "conductor", "api")
_ON_BUS = ("scheduler", "conductor", "compute_agent")
_ALL = ("scheduler", "conductor", "compute_agent", "api")

_METHOD = {"method": "the method of the interface, see the page about RPC"}
_TASK = {"task": "what is done again and again: relay, expiry, waiting queues, ..."}

CLAIMS = Counter(
    "claims_total",
    "Claims that callers asked for, by what they got. A call that is made again counts again.",
    {
        "outcome": "claimed, waiting (in a queue), refused, or error (the caller may call again)",
        "reason": "why it was refused: the filter that left no device, or queue, quota, conflict or invalid",
    },
    services=_SCHEDULER,
)
CLAIM_PHASES = Histogram(
    "claim_phase_seconds",
    "How long a part of a claim takes.",
    {
        "phase": "queue: from the caller to the scheduler, by their clocks; choose: a look of the exact "
        "path for devices to take; commit: a statement that locks, writes and commits, and on the quick path "
        "chooses too, once for claims that are made together; cast: from the commit until the broker has the "
        "steps; attach: what the agent takes to attach the devices"
    },
    services=("scheduler", "compute_agent"),
)
WAITING_ENDED = Counter(
    "waiting_claims_ended_total",
    "Claims that have left a queue by themselves.",
    {"outcome": ("served", "expired")},
    services=_SCHEDULER,
)
STEPS_NOT_CAST = Counter(
    "steps_not_cast_total",
    "Steps that could not be sent right after their commit. A conductor sends them later.",
    services=_SCHEDULER,
)

STEPS_RESENT = Counter(
    "steps_resent_total", "Steps that were sent again, because no agent had answered.", services=_CONDUCTOR
)
STEPS_PARKED = Counter(
    "steps_parked_total", "Steps that are no longer sent. An operator must act.", services=_CONDUCTOR
)
STEP_ANSWERS = Counter(
    "step_answers_total",
    "Answers of agents to steps.",
    {"outcome": ("done", "prepared", "failed")},
    services=_CONDUCTOR,
)
CLAIMS_EXPIRED = Counter(
    "claims_expired_total",
    "Claims that were not prepared in time, or whose instance did not come in time.",
    services=_CONDUCTOR,
)
EVENTS_PUBLISHED = Counter(
    "events_published_total", "Events that the broker has confirmed.", services=_CONDUCTOR
)
SIGNS_OF_LIFE = Counter("signs_of_life_total", "Signs of life of agents.", services=_CONDUCTOR)

STEP_SECONDS = Histogram(
    "step_seconds",
    "How long the agent takes to do a step.",
    {
        "action": "prepare, attach, unplug or detach",
        "outcome": "done, prepared (the instance is not here yet), failed, or none (stale, or not now)",
    },
    services=_AGENT,
)
TAKES_STEPS = Gauge(
    "agent_takes_steps",
    "1: the conductor has accepted this agent as its host's. 0: it has not, or another agent has the host.",
    services=_AGENT,
)

HTTP_SECONDS = Histogram(
    "http_request_seconds",
    "How long a request takes until its answer begins.",
    {"method": "GET, PUT, ...", "route": "the path with names in place of ids; none: there is no such path"},
    services=_API,
)
HTTP_ANSWERS = Counter(
    "http_requests_total",
    "Requests over HTTP.",
    {"method": "GET, PUT, ...", "route": "as above", "status": "the status of the answer"},
    services=_API,
)

RPC_SECONDS = Histogram(
    "rpc_seconds", "How long a call over the bus is worked on.", _METHOD, services=_ON_BUS
)
RPC_QUEUE_SECONDS = Histogram(
    "rpc_queue_seconds",
    "How long a call waits in the broker and for a thread, by the clocks of caller and service.",
    _METHOD,
    services=_ON_BUS,
)
RPC_ERRORS = Counter(
    "rpc_errors_total",
    "Calls over the bus that were answered with an error.",
    _METHOD | {"error": "the class of the error"},
    services=_ON_BUS,
)
RPC_REPEATED = Counter(
    "rpc_calls_repeated_total",
    "Calls that this service has made again, because no answer came.",
    _METHOD,
    services=_ALL,
)
MESSAGES_REFUSED = Counter(
    "messages_refused_total",
    "Messages from the bus that were refused because of their sender or their form.",
    {
        "queue": "conductor, scheduler, compute_agent, reply, ...",
        "reason": "unsigned, unknown-key, foreign-host, replayed, ...: see the page about who is trusted",
    },
    services=_ON_BUS,
)
HOSTS_CUT_OFF = Counter(
    "hosts_cut_off_total",
    "Times that a host was cut off because it floods the conductors.",
    services=("conductor",),
)
BUS_CONNECTED = Gauge(
    "bus_connected",
    "1: the workers take calls from the broker. 0: one of them has no connection.",
    mode="livemin",
    services=_ON_BUS,
)
BUS_RECONNECTS = Counter("bus_reconnects_total", "Connections to the broker made again.", services=_ALL)

DATABASE_RETRIES = Counter(
    "database_retries_total",
    "Transactions that were run again after a passing fault of the database.",
    services=_ON_DATABASE,
)
DATABASE_ERRORS = Counter(
    "database_errors_total",
    "Work that was given up because of the database.",
    {"kind": ("unavailable", "stuck lock", "exhausted", "pool busy")},
    services=_ON_DATABASE,
)
POOL_CONNECTIONS = Gauge(
    "database_pool_connections",
    "Connections to the database, looked at every few seconds.",
    {"state": ("in use", "idle")},
    services=_ON_DATABASE,
)
POOL_SIZE = Gauge(
    "database_pool_size", "Connections to the database that there may be.", services=_ON_DATABASE
)

TASK_SECONDS = Histogram(
    "task_seconds", "How long a round of a periodic task takes.", _TASK, services=("scheduler", "conductor")
)
TASK_FAILURES = Counter(
    "task_failures_total",
    "Rounds of a periodic task that failed. The next round does the work.",
    _TASK,
    services=("scheduler", "conductor"),
)
LOG_RECORDS = Counter(
    "log_records_total",
    "Lines of the log that somebody should read.",
    {"level": ("warning", "error")},
    services=_ALL,
)
WORKER = Gauge("workers", "Worker processes that run.", services=_ALL)
