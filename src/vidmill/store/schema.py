"""Every table there is, in one place: what migrations must make."""

from vidmill.store import (
    account_tables,
    batch_tables,
    learning_tables,
    lora_tables,
    models,
    storyboard_tables,
    webhook_tables,
)

TABLE_MODULES = (
    models,
    account_tables,
    learning_tables,
    batch_tables,
    lora_tables,
    storyboard_tables,
    webhook_tables,
)
"""Importing a module adds its tables to `metadata`."""

metadata = models.metadata
