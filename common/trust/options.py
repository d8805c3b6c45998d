"""The options of trust between hosts and services."""

from __future__ import annotations

from oslo_config import cfg

GROUP = cfg.OptGroup("trust", "Who may send what: signatures of hosts and services")

OPTIONS = [
    cfg.StrOpt(
        "require",
        default="enrolled",
        choices=[
            ("off", "Signatures are not checked. Whoever can write to a queue can speak for any host."),
            ("enrolled", "A host that is enrolled must sign. Other hosts need not."),
            ("all", "Every host must be enrolled, and must sign."),
        ],
        help="Which messages must be signed. A conductor reads it for what agents send, and an agent for the "
        "steps that it gets: an agent that is enrolled accepts only signed ones, unless this is `off`.",
    ),
    cfg.StrOpt(
        "services_key_file",
        help="File with the private key of the services, the same for all schedulers and conductors. They "
        "sign the steps for agents with it. With several keys in it, the first one signs, and agents accept "
        "all. `portclaim trust new-key FILE` makes one. Without it, hosts cannot be enrolled.",
    ),
    cfg.IntOpt(
        "max_age",
        default=120,
        min=10,
        max=3600,
        help="Seconds that a signed message may be old, or ahead of time, by the receiver's clock. The "
        "clocks of hosts and services must not differ by more.",
    ),
    cfg.IntOpt(
        "host_rate",
        default=200,
        min=1,
        help="How many messages a second one worker takes from one host. It refuses the others. For a short "
        "time it takes ten times as many.",
    ),
    cfg.IntOpt(
        "cut_off_after",
        default=1000,
        min=0,
        help="After so many messages of a host that a worker has refused as too many or as broken, "
        "without a pause of ten seconds, it cuts the host off: the broker drops what the host sends, until "
        "`portclaim broker readmit HOST`. 0: never. It needs a user of `portclaim broker grant` for each "
        "host.",
    ),
    cfg.BoolOpt(
        "operators_on_scheduler_topic",
        default=True,
        help="Also take operators' calls (drain, remove_host, force_release, retry) from the topic "
        "scheduler, where callers of the last release send them. Set it to false when all callers send them "
        "to scheduler_operators: then the broker's permissions can keep claimers from them.",
    ),
]

AGENT_OPTIONS = [
    cfg.StrOpt(
        "enrolment_token_file",
        help="File with the token of `portclaim host enroll`. With it, the agent makes a key and has it "
        "registered when it starts. The token works once. The file may be removed afterwards.",
    ),
    cfg.IntOpt(
        "rotate_key_after",
        default=90,
        min=0,
        help="Days after which the agent replaces its key. 0: never.",
    ),
    cfg.FloatOpt(
        "services_keys_interval",
        default=600.0,
        min=0.1,
        help="Seconds, at most, between two questions of an agent for the services' keys. It also asks when "
        "a step is signed with a key that it does not know. While the services' key is replaced, wait for "
        "so long between two steps.",
    ),
]


def list_opts() -> list[tuple[cfg.OptGroup, list[cfg.Opt]]]:
    """The group and its options."""
    return [(GROUP, OPTIONS)]
