"""Alembic's entry: runs the migrations on the connection that `Ledger` hands over."""

from alembic import context

connection = context.config.attributes["connection"]
context.configure(connection=connection, transaction_per_migration=False)
context.run_migrations()
