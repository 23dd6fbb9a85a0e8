"""A broker's URL: what the client library gets of it, and the `prefix` that is ours."""

from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

PREFIX = "vidmill"


@dataclass(frozen=True)
class Address:
    """Where a broker is.

    Attributes:
        url: Without the prefix, as the client library takes it.
        prefix: Begins the name of each queue and channel.
    """

    url: str
    scheme: str
    prefix: str


def read_address(url: str) -> Address:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    prefix = query.pop("prefix", PREFIX)
    bare = urlunsplit(parts._replace(query=urlencode(query)))
    return Address(url=bare, scheme=parts.scheme, prefix=prefix)
