"""Alembic's entry: runs the migrations inside the transaction of `store.migrate`."""

from alembic import context

from vidmill.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=False,  # `store.migrate` begins and commits
)
context.run_migrations()
