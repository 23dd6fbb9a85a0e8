"""Plug-in tables: `name -> "module:Class"`, loaded on first use by one function."""

import importlib
from collections.abc import Mapping
from typing import Any


def load_plugin(table: Mapping[str, str], name: str) -> Any:
    """Return the class called *name*, importing its module now.

    Raises:
        LookupError: The table has no such name; the message lists those it has.
    """
    if name not in table:
        known = ", ".join(sorted(table))
        raise LookupError(f"{name!r} is not known here; choose one of: {known}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
