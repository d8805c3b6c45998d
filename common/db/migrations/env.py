"""Alembic runs the migrations on the connection that :mod:`portclaim.common.db.migrate` provides."""

from alembic import context

# That connection is in a transaction, which alembic leaves open.
context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
