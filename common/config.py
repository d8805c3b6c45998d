"""Configuration: every option of every service, from file, environment and flags (oslo.config).

Each process, and in the demo each service, has a ``ConfigOpts`` of its own; nothing uses the global
one. An environment variable is named ``OS_<GROUP>__<OPTION>``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

from portclaim.common.errors import InvalidConfiguration
from portclaim.common.pci.nova_options import OLD_NAMES, refusals


def _old_names(option: str) -> list[cfg.DeprecatedOpt]:
    """Under which names Nova still reads an option of ``[pci]``."""
    return [cfg.DeprecatedOpt(name, group=section) for section, name in OLD_NAMES[option]]


DEFAULT_OPTIONS = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help="Name of this compute node, unique in the fleet. It is also where its agent is reached.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/portclaim",
        help="Directory for what a compute agent must remember over a restart.",
    ),
]

DATABASE = cfg.OptGroup("database", "PostgreSQL; only conductor, scheduler and `portclaim db` need it")
DATABASE_OPTIONS = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database, postgresql+psycopg2://user:password@host/name. Several "
        "hosts and target_session_attrs=read-write may be named for a primary with a standby.",
    ),
]

RPC = cfg.OptGroup("rpc", "Calls between the services")
RPC_OPTIONS = [
    cfg.FloatOpt("timeout", default=10.0, min=0.1, help="Seconds to wait for one answer."),
    cfg.IntOpt(
        "attempts",
        default=3,
        min=1,
        help="How often a call is made before the service counts as unavailable. Every method is "
        "idempotent, so calling again is safe.",
    ),
    cfg.IntOpt(
        "threads",
        default=8,
        min=1,
        max=30,
        help="Messages that one worker process handles at a time. Not more than the connections that "
        "oslo.messaging keeps for the replies, [oslo_messaging_rabbit] rpc_conn_pool_size.",
    ),
]

CONDUCTOR = cfg.OptGroup("conductor", "Inventory and the life of a claim")
CONDUCTOR_OPTIONS = [
    cfg.IntOpt("workers", default=1, min=1, help="Worker processes."),
    cfg.FloatOpt(
        "resend_after",
        default=5.0,
        min=0.1,
        help="Seconds after which a step that no agent has answered is sent again.",
    ),
    cfg.IntOpt(
        "max_sends",
        default=100,
        min=1,
        help="How often a step is sent before it is parked. With each silence the wait doubles, up to 64 "
        "times resend_after. `portclaim outbox` shows what is parked, and has it sent again.",
    ),
    cfg.FloatOpt(
        "agent_down_after",
        default=60.0,
        min=0.1,
        help="Seconds of silence after which a host gets no claims, and another agent may take over its "
        "name.",
    ),
    cfg.FloatOpt(
        "expire_after",
        default=1800.0,
        min=0.0,
        help="Seconds after which a claim that no agent has attached is taken back and ends as expired; 0: "
        "never. Its devices are free once its agent has answered that it does not have them.",
    ),
    cfg.IntOpt(
        "prune_after",
        default=0,
        min=0,
        help="Days after which a claim that has ended is forgotten, with its history; 0: never. "
        "`portclaim db prune` does the same by hand.",
    ),
    cfg.BoolOpt(
        "publish_events",
        default=True,
        help="Publish what becomes of claims and devices on the exchange portclaim.events. What happens "
        "while no conductor does is published once one does again.",
    ),
]

SCHEDULER = cfg.OptGroup("scheduler", "Claims")
SCHEDULER_OPTIONS = [
    cfg.IntOpt("workers", default=1, min=1, help="Worker processes."),
    cfg.StrOpt(
        "packing",
        default="pack",
        help="Which of the devices that would do is taken: a plug-in of the namespace portclaim.packing. "
        "`pack` keeps whole ports whole, `spread` uses as many ports as it can.",
    ),
    cfg.FloatOpt(
        "serve_interval",
        default=2.0,
        min=0.1,
        help="Seconds between two looks at the claims that wait. What makes room for one has it looked at at "
        "once; this is for deadlines, for hosts that are heard of again, and for what was missed.",
    ),
]

COMPUTE_AGENT = cfg.OptGroup("compute_agent", "One per compute node")
COMPUTE_AGENT_OPTIONS = [
    cfg.StrOpt(
        "driver",
        default="simulated",
        help="How devices reach an instance: a plug-in of the namespace portclaim.hypervisor.",
    ),
    cfg.StrOpt("sysfs_root", default="/sys", help="Where the host's devices are read."),
    cfg.FloatOpt(
        "report_interval",
        default=10.0,
        min=0.1,
        help="Seconds between two reports. A report of an unchanged inventory is only a sign of life.",
    ),
]

PCI = cfg.OptGroup("pci", "Nova's own section: paste it from nova.conf")
PCI_OPTIONS = [
    cfg.MultiStrOpt(
        "device_spec",
        default=[],
        deprecated_opts=_old_names("device_spec"),
        help="Which devices of a compute node may be handed out; read by its agent. JSON object or list.",
    ),
    cfg.MultiStrOpt(
        "alias",
        default=[],
        deprecated_opts=_old_names("alias"),
        help="Names for kinds of device; read by the scheduler. JSON.",
    ),
]

OPTIONS: list[tuple[cfg.OptGroup | None, Sequence[cfg.Opt]]] = [
    (None, DEFAULT_OPTIONS),
    (DATABASE, DATABASE_OPTIONS),
    (RPC, RPC_OPTIONS),
    (CONDUCTOR, CONDUCTOR_OPTIONS),
    (SCHEDULER, SCHEDULER_OPTIONS),
    (COMPUTE_AGENT, COMPUTE_AGENT_OPTIONS),
    (PCI, PCI_OPTIONS),
]


def list_opts() -> list[tuple[cfg.OptGroup | None, Sequence[cfg.Opt]]]:
    """All options, for oslo.config's sample and documentation generators."""
    return OPTIONS


def load(args: Sequence[str], prog: str, extra: Sequence[cfg.Opt] = ()) -> cfg.ConfigOpts:
    """Read the configuration of the program ``prog`` from its arguments, environment and files.

    ``extra`` are flags that only this program has. Without ``--config-file``, ``portclaim.conf`` is
    looked for in ``~/.portclaim``, ``~``, ``/etc/portclaim`` and ``/etc``.
    Raises :class:`InvalidConfiguration`; ``--help``, ``--version`` and bad usage end the program.
    """
    conf = cfg.ConfigOpts()
    log.register_options(conf)
    conf.register_cli_opts(extra)
    for group, options in OPTIONS:
        # What is secret has no flag: other users of the machine can read flags. Nor has what
        # takes JSON: it belongs in a file.
        flags = [option for option in options if not option.secret and group is not PCI]
        conf.register_cli_opts(flags, group)
        conf.register_opts(options, group)
    try:
        conf(args, project="portclaim", prog=prog)
        _refuse_dishonoured_options(conf.config_file or ())
        _refuse_invalid_values(conf)
        _refuse_other_databases(conf)
    except cfg.Error as error:
        raise InvalidConfiguration(str(error)) from error
    return conf


def _refuse_dishonoured_options(files: Sequence[str]) -> None:
    """oslo.config passes over what nobody registered, but an option of Nova's must not be lost in silence."""
    for file in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        settings = {
            (section, name): values for section, found in sections.items() for name, values in found.items()
        }
        for (section, name), reason in refusals(settings).items():
            raise InvalidConfiguration(f"{file}: [{section}] {name}: {reason}", file=file, option=name)


def _refuse_invalid_values(conf: cfg.ConfigOpts) -> None:
    """Read every option once, so that a bad value stops the program here and not at its first use."""
    for group, options in OPTIONS:
        for option in options:
            getattr(conf if group is None else conf[group.name], option.dest)


def _refuse_other_databases(conf: cfg.ConfigOpts) -> None:
    """The value itself may hold a password, so it is not repeated."""
    url = conf.database.connection
    if url and not url.startswith(("postgresql://", "postgresql+psycopg2://")):
        raise InvalidConfiguration(
            "[database] connection is not the URL of a PostgreSQL database; "
            "write postgresql+psycopg2://user:password@host/name"
        )
