"""Configuration: every option of every service, from files, environment variables and flags (oslo.config).

The environment variable of an option is ``OS_<GROUP>__<OPTION>``. For a secret, ``OS_<GROUP>__<OPTION>_FILE``
may name a file that has it. Each process has its own ``ConfigOpts``, and so has each service of the demo.
Nothing uses the global one.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from oslo_config import cfg
from oslo_log import log

from portclaim.common import config_faults, option_environment, secret_urls
from portclaim.common.database_options import DATABASE, DATABASE_OPTIONS
from portclaim.common.errors import InvalidConfiguration
from portclaim.common.option_groups import register
from portclaim.common.pci.nova_options import EXPLAINED, OLD_NAMES, refusals
from portclaim.common.trust import options as trust


def _old_names(option: str) -> list[cfg.DeprecatedOpt]:
    """The old names under which Nova still reads an option of ``[pci]``."""
    return [cfg.DeprecatedOpt(name, group=section) for section, name in OLD_NAMES[option]]


DEFAULT_OPTIONS = [
    cfg.HostAddressOpt(
        "host",
        default=socket.gethostname(),
        sample_default="<this machine's host name>",
        help="Name of this compute node. It must be unique in the fleet. Its agent takes calls under this "
        "name.",
    ),
    cfg.StrOpt(
        "state_path",
        default="/var/lib/portclaim",
        help="Directory for the files that a compute agent keeps when it restarts.",
    ),
]

RPC = cfg.OptGroup("rpc", "Calls between the services")
RPC_OPTIONS = [
    cfg.FloatOpt("timeout", default=10.0, min=0.1, help="Seconds to wait for one answer."),
    cfg.IntOpt(
        "attempts",
        default=3,
        min=1,
        help="How often a call is made before it fails. Every method is idempotent, so a repeated call is "
        "safe.",
    ),
    cfg.IntOpt(
        "threads",
        default=8,
        min=1,
        max=30,
        help="Number of messages that one worker process handles at the same time. It must not exceed "
        "[oslo_messaging_rabbit] rpc_conn_pool_size, the number of connections for answers.",
    ),
]

UPGRADE_LEVELS = cfg.OptGroup(
    "upgrade_levels", "Pins for a rolling upgrade: the newest RPC version that this process sends"
)
UPGRADE_LEVELS_OPTIONS = [
    cfg.StrOpt(
        topic,
        regex=r"^1\.\d+$",
        metavar="VERSION",
        help=f"The newest version of the {topic} interface that this process uses, for example 1.0. Set it "
        f"while instances of the service {topic} still run an older release. Default: no limit.",
    )
    for topic in ("scheduler", "conductor", "compute_agent")
]

CONDUCTOR = cfg.OptGroup("conductor", "The conductor: inventory and the life cycle of claims")
CONDUCTOR_OPTIONS = [
    cfg.IntOpt("workers", default=1, min=1, help="Number of worker processes."),
    cfg.FloatOpt(
        "resend_after",
        default=5.0,
        min=0.1,
        help="Seconds until a step that its agent has not answered is sent again.",
    ),
    cfg.IntOpt(
        "max_sends",
        default=100,
        min=1,
        help="How often a step is sent before it is parked. The time between two sends doubles each time, "
        "up to 64 times resend_after. `portclaim outbox list --parked` lists parked steps, `portclaim "
        "outbox retry` sends them again.",
    ),
    cfg.FloatOpt(
        "agent_down_after",
        default=60.0,
        min=0.1,
        help="Seconds of silence after which an agent counts as down. Its host then gets no claims, and "
        "another agent may report under the host's name.",
    ),
    cfg.FloatOpt(
        "expire_after",
        default=1800.0,
        min=0.0,
        help="Seconds after which a claim expires if its agent has not prepared the devices. The devices are "
        "free after the agent has confirmed that no guest holds them. 0: claims do not expire.",
    ),
    cfg.FloatOpt(
        "guest_within",
        default=3600.0,
        min=0.0,
        help="Seconds after which a prepared claim expires if its instance has not got the devices. A claim "
        "can ask for another time. 0: prepared claims do not expire.",
    ),
    cfg.IntOpt(
        "prune_after",
        default=0,
        min=0,
        help="Days after which an ended claim is deleted with its history, as `portclaim db prune` does. "
        "0: nothing is deleted.",
    ),
    cfg.BoolOpt(
        "publish_events",
        default=True,
        help="Publish changes of claims and devices on the exchange portclaim.events. While all conductors "
        "are down, events wait in the database.",
    ),
]

SCHEDULER = cfg.OptGroup("scheduler", "The scheduler: claims and waiting queues")
SCHEDULER_OPTIONS = [
    cfg.IntOpt("workers", default=1, min=1, help="Number of worker processes."),
    cfg.StrOpt(
        "packing",
        default="pack",
        help="Packing policy: which of several suitable devices a claim gets. A plug-in of the namespace "
        "portclaim.packing. `pack` keeps whole ports free, `spread` uses as many ports as possible.",
    ),
    cfg.FloatOpt(
        "serve_interval",
        default=2.0,
        min=0.1,
        help="Seconds between two rounds that serve the waiting queues. A round also starts at once when "
        "devices become free. The regular rounds handle deadlines, hosts that come back and lost "
        "notifications.",
    ),
]

COMPUTE_AGENT = cfg.OptGroup("compute_agent", "The compute agent: one for each compute node")
COMPUTE_AGENT_OPTIONS = [
    *trust.AGENT_OPTIONS,
    cfg.StrOpt(
        "driver",
        default="simulated",
        help="How devices reach an instance: a plug-in of the namespace portclaim.hypervisor. Portclaim has "
        "`simulated`, `vfio` and `libvirt`.",
    ),
    cfg.StrOpt("sysfs_root", default="/sys", help="Directory where the agent reads the host's devices."),
    cfg.FloatOpt(
        "report_interval",
        default=10.0,
        min=0.1,
        help="Seconds between two reports. While nothing changes, a report is only a sign of life.",
    ),
    cfg.FloatOpt(
        "idle_vfs_removed_after",
        default=300.0,
        min=0.0,
        help="Seconds until a port with a range as num_vfs loses the VFs that nobody uses.",
    ),
]

PCI = cfg.OptGroup("pci", "The section [pci] of nova.conf. Copy it from there.")
PCI_OPTIONS = [
    cfg.MultiStrOpt(
        "device_spec",
        default=[],
        deprecated_opts=_old_names("device_spec"),
        help="Which devices of a compute node claims may have: a JSON object, or a list of them. The compute "
        "agent reads it.",
    ),
    cfg.MultiStrOpt(
        "alias",
        default=[],
        deprecated_opts=_old_names("alias"),
        help="A name for a kind of device, as a JSON object. The scheduler reads it.",
    ),
    cfg.BoolOpt(
        "report_in_placement",
        default=False,
        help="As in nova.conf. Nothing is reported to Placement: "
        + EXPLAINED["pci", "report_in_placement"]
        + ".",
    ),
]

FILTER_SCHEDULER = cfg.OptGroup(
    "filter_scheduler", "One option of the section [filter_scheduler] of nova.conf. Others are ignored."
)
FILTER_SCHEDULER_OPTIONS = [
    cfg.BoolOpt(
        "pci_in_placement",
        default=False,
        help="As in nova.conf: an alias that names no resource class asks for the class of its ids, "
        "CUSTOM_PCI_<vendor_id>_<product_id>. So it gets no device whose device_spec entry names another "
        "class. The scheduler reads it.",
    ),
]

OPTIONS: list[tuple[cfg.OptGroup | None, Sequence[cfg.Opt]]] = [
    (None, DEFAULT_OPTIONS),
    (DATABASE, DATABASE_OPTIONS),
    (RPC, RPC_OPTIONS),
    (UPGRADE_LEVELS, UPGRADE_LEVELS_OPTIONS),
    (CONDUCTOR, CONDUCTOR_OPTIONS),
    (SCHEDULER, SCHEDULER_OPTIONS),
    (COMPUTE_AGENT, COMPUTE_AGENT_OPTIONS),
    (trust.GROUP, trust.OPTIONS),
    (PCI, PCI_OPTIONS),
    (FILTER_SCHEDULER, FILTER_SCHEDULER_OPTIONS),
]

_FILE_ONLY = (PCI, FILTER_SCHEDULER, UPGRADE_LEVELS)
"""Groups without flags."""


def list_opts() -> list[tuple[cfg.OptGroup | None, Sequence[cfg.Opt]]]:
    """All options, for oslo.config's sample and documentation generators."""
    return OPTIONS


def load(args: Sequence[str], prog: str, extra: Sequence[cfg.Opt] = ()) -> cfg.ConfigOpts:
    """Read the configuration of the program ``prog`` from its arguments, environment and files.

    ``extra`` are flags that only this program has. Without ``--config-file`` it reads ``portclaim.conf`` from
    ``~/.portclaim``, ``~``, ``/etc/portclaim`` or ``/etc``, the first one that exists.
    Raises :class:`InvalidConfiguration`. ``--help``, ``--version`` and invalid flags end the program.
    """
    conf = cfg.ConfigOpts()
    option_environment.use(conf)
    log.register_options(conf)
    conf.register_cli_opts(extra)
    for group, options in OPTIONS:
        # A secret has no flag, because other users of the machine can read flags. An option with JSON has
        # none, because a shell makes JSON hard to write. Pins belong in a file that all programs read.
        flags = [option for option in options if not option.secret and group not in _FILE_ONLY]
        register(conf, flags, group, flags=True)
        register(conf, options, group)
    try:
        conf(args, project="portclaim", prog=prog)
        _refuse_dishonoured_options(conf.config_file or ())
        _refuse_invalid_values(conf)
        if conf.database.connection:
            secret_urls.check_database(conf.database.connection, "[database] connection")
    except cfg.Error as error:
        raise InvalidConfiguration(config_faults.explained(error)) from error
    return conf


def explanations(conf: cfg.ConfigOpts) -> list[str]:
    """What to say when a service starts about options that are set and mean something else for Nova."""
    return [
        f"[{section}] {option} is set: {meaning}"
        for (section, option), meaning in EXPLAINED.items()
        if conf[section][option]
    ]


def _refuse_dishonoured_options(files: Sequence[str]) -> None:
    """Refuse options of Nova that Portclaim does not honour. oslo.config alone would ignore them."""
    for file in files:
        sections: dict[str, dict[str, list[str]]] = {}
        cfg.ConfigParser(file, sections).parse()
        settings = {
            (section, name): values for section, found in sections.items() for name, values in found.items()
        }
        for (section, name), reason in refusals(settings).items():
            raise InvalidConfiguration(f"{file}: [{section}] {name}: {reason}", file=file, option=name)


def _refuse_invalid_values(conf: cfg.ConfigOpts) -> None:
    """Read every option once, so that an invalid value stops the program now and not at its first use."""
    for group, options in OPTIONS:
        for option in options:
            try:
                getattr(conf if group is None else conf[group.name], option.dest)
            except config_faults.MISSING_NAMES:
                if not option.secret:
                    raise
                place = group.name if group else "DEFAULT"
                raise InvalidConfiguration(f"[{place}] {option.name} {config_faults.DOLLAR}") from None
