"""The options of the database, for the services that use it."""

from oslo_config import cfg

DATABASE = cfg.OptGroup(
    "database", "The PostgreSQL database. Only the conductor, the scheduler and `portclaim db` use it."
)
DATABASE_OPTIONS = [
    cfg.StrOpt(
        "connection",
        secret=True,
        help="SQLAlchemy URL of the database: postgresql+psycopg2://user:password@host/name. For a primary "
        "with a standby, name both hosts and add target_session_attrs=read-write.",
    ),
    cfg.FloatOpt(
        "answer_within",
        default=60.0,
        min=1.0,
        help="Seconds after which a transaction that the server does not finish is given up: its connection "
        "is closed, and the work is done again on a new one. A server that hangs holds up its callers for so "
        "long, or twice as long.",
    ),
]
