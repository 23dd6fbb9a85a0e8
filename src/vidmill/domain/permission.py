"""What an API key may be used for."""

from enum import StrEnum


class Scope(StrEnum):
    """One kind of thing a key may do. Each route asks for one; none contains another."""

    READ = "read"  # look at tasks, batches, files and limits
    SUBMIT = "submit"  # make, cancel, repeat and delete tasks and batches
    ADMIN = "admin"  # keys and webhook endpoints of the tenant


ALL_SCOPES = frozenset(Scope)
