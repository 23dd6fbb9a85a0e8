"""Where a webhook may go: public addresses, and those inside that the operator allows.

A tenant chooses the URL, and the server calls it from within the operator's network: unguarded, it
would reach whatever a machine there can reach (server-side request forgery). A name is resolved,
*every* address it has must be allowed, and the call goes to the very address that was checked, so
that a name which changes its mind between check and call (DNS rebinding) gains nothing.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import httpx2

from vidmill.domain.errors import FieldProblem, InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str], Sequence[str]]

URL_MAX_CHARS = 2000
PORT_MAX = 65_535
RESOLVE_S = 5.0
RESOLVING_MAX = 64
"""Names looked up at once; a resolver that hangs holds a thread, not the event loop."""

NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # metadata of Azure's machines, on an address that looks public
        "192.0.0.0/24",  # IETF's own, and Oracle's metadata
        "192.88.99.0/24",  # relays to 6to4
        "224.0.0.0/3",  # multicast and reserved
        "::/8",  # unspecified, loopback, IPv4-compatible and other oddities
        "64:ff9b:1::/48",  # NAT64 of a network's own
        "100::/64",  # discarded
        "2001::/23",  # Teredo, benchmarks, ORCHID
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
        "fec0::/10",  # site-local, once
        "ff00::/8",  # multicast
    )
)
"""Beside what `ipaddress` knows not to be global."""

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


class Target(NamedTuple):
    """A URL whose every address may be called."""

    url: httpx2.URL
    addresses: tuple[str, ...]


class UrlRefused(Exception):
    """The URL may not be called. `code` and the message are for whoever gave it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code

    def problem(self, pointer: str) -> FieldProblem:
        return FieldProblem(pointer=pointer, code=self.code, message=str(self))


class Guard:
    """The rules of one installation."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        is_http_allowed: bool = False,
        resolve: Resolve,
        resolve_s: float = RESOLVE_S,
    ) -> None:
        """Take *allow*, hosts and networks (`10.1.0.0/16`) that are not public but may be called.

        *resolve* returns the addresses of a host, or raises OSError; it is given *resolve_s*.
        """
        self._networks, self._hosts = _split(allow)
        self._schemes = ("https", "http") if is_http_allowed else ("https",)
        self._resolve = resolve
        self._resolve_s = resolve_s
        self._threads = ThreadPoolExecutor(RESOLVING_MAX, thread_name_prefix="resolve")

    def problem_of(self, url: str, pointer: str) -> FieldProblem | None:
        """Return what is wrong with *url* as it stands, no name resolved; cheap."""
        try:
            self._parsed(url)
        except UrlRefused as refused:
            return refused.problem(pointer)
        return None

    async def admit(self, url: str, pointer: str = "#/url") -> None:
        """Return if *url* may be called now.

        Raises:
            InvalidRequest: It may not.
        """
        try:
            await self.target(url)
        except UrlRefused as refused:
            raise InvalidRequest([refused.problem(pointer)]) from None

    async def target(self, url: str) -> Target:
        """Return *url* with the addresses it has now, each of them checked.

        Raises:
            UrlRefused: It may not be called, or its name has no address.
        """
        parsed = self._parsed(url)
        host = parsed.raw_host.decode()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._resolve_s):
                found = await loop.run_in_executor(self._threads, self._resolve, host)
        except (OSError, UnicodeError) as error:  # a time-out is an OSError, too
            raise UrlRefused("unresolvable", f"the host {host!r} has no address now") from error
        if not found or not all(self._may_call(host, text) for text in found):
            raise _not_public(host)
        return Target(parsed, tuple(found))

    def _parsed(self, url: str) -> httpx2.URL:
        """Return the URL, if neither its form nor an address in it speaks against it."""
        if len(url) > URL_MAX_CHARS:
            raise UrlRefused("max_length", f"it is longer than {URL_MAX_CHARS} characters")
        try:
            parsed = httpx2.URL(url)
        except (httpx2.InvalidURL, UnicodeError):
            raise UrlRefused("url", "it is not a URL such as https://example.com/hook") from None
        if parsed.scheme not in self._schemes or not parsed.raw_host:
            known = " or ".join(f"{scheme}://" for scheme in self._schemes)
            raise UrlRefused("scheme", f"it must begin with {known} and name a host")
        if parsed.userinfo:
            raise UrlRefused("userinfo", "it holds a user name or password; webhooks are signed")
        host = parsed.raw_host.decode()
        if "%" in host or not (parsed.port is None or 0 < parsed.port <= PORT_MAX):
            raise UrlRefused("url", "its host or port is none; write https://example.com/hook")
        literal = _literal(host)
        if literal is not None and not self._may_call(host, literal):
            raise _not_public(host)
        return parsed

    def _may_call(self, host: str, text: str) -> bool:
        if host.rstrip(".").lower() in self._hosts:
            return True
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        embedded = _embedded(address)
        return is_public(address) or any(embedded in network for network in self._networks)


def is_public(address: Address) -> bool:
    """Whether *address* is anybody's on the internet, and no machine's of this network."""
    inner = _embedded(address)
    listed = any(inner in network for network in NOT_PUBLIC if network.version == inner.version)
    return inner.is_global and not listed


def resolve_host(host: str) -> list[str]:
    """Return the addresses of *host* as the system knows them.

    Raises:
        OSError: It has none.
    """
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def _embedded(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 one stands for, and any other as it is."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _literal(host: str) -> str | None:
    """Return the address that *host* spells, in whatever way (`127.1`, `0x7f000001`); or None."""
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None


def _split(allow: Iterable[str]) -> tuple[tuple[Network, ...], frozenset[str]]:
    networks, hosts = [], set()
    for entry in allow:
        try:
            networks.append(ipaddress.ip_network(entry.strip(), strict=False))
        except ValueError:
            hosts.add(entry.strip().rstrip(".").lower())
    return tuple(networks), frozenset(hosts)


def _not_public(host: str) -> UrlRefused:
    # Which address a name has inside is nobody's business outside.
    return UrlRefused(
        "address",
        f"the host {host[:80]!r} is not on the public internet; the operator can allow it"
        " (VIDMILL_WEBHOOK_ALLOW)",
    )
