"""Where webhooks may go."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from vidmill.domain.errors import InvalidRequest
from vidmill.outbound.guard import Guard, UrlRefused, resolve_host

INSIDE = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "100.100.100.200",  # metadata at Alibaba
    "127.0.0.1",
    "127.8.9.10",
    "168.63.129.16",  # metadata at Azure
    "169.254.169.254",  # metadata at AWS, GCP and most others
    "172.16.0.1",
    "192.0.0.192",  # metadata at Oracle
    "192.168.1.1",
    "192.88.99.1",
    "198.18.0.1",
    "203.0.113.5",
    "224.0.0.1",
    "239.1.2.3",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",  # 10.0.0.1 by NAT64
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:db8::1",
    "2002:a00:1::1",  # 10.0.0.1 by 6to4
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",  # metadata at AWS
    "fe80::1",
    "fe80::1%2",
    "fec0::1",
    "ff02::1",
)
OUTSIDE = ("93.184.216.34", "8.8.8.8", "2606:4700::1", "64:ff9b::808:808", "::ffff:8.8.8.8")


def make_guard(*addresses: str, allow: Sequence[str] = (), http: bool = False) -> Guard:
    """Return a guard for whom every name has *addresses*."""
    return Guard(allow=allow, is_http_allowed=http, resolve=lambda _host: addresses)


def target(guard: Guard, url: str) -> tuple[str, ...]:
    return asyncio.run(guard.target(url)).addresses


@pytest.mark.parametrize("address", INSIDE)
def test_name_that_leads_inside_is_refused(address: str) -> None:
    with pytest.raises(UrlRefused, match="not on the public internet"):
        target(make_guard(address), "https://example.com/hook")


@pytest.mark.parametrize("address", OUTSIDE)
def test_public_address_is_called_as_it_was_resolved(address: str) -> None:
    assert target(make_guard(address), "https://example.com/hook") == (address,)


def test_one_address_inside_among_public_ones_is_enough_to_refuse() -> None:
    with pytest.raises(UrlRefused):
        target(make_guard("8.8.8.8", "10.0.0.1"), "https://example.com/hook")


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "a.localhost",
        "127.1",
        "2130706433",
        "0x7f000001",
        "[::1]",
        "[::ffff:10.0.0.1]",
        "169.254.169.254",
    ],
)
def test_address_in_the_url_itself_is_refused_without_a_look_up(host: str) -> None:
    guard = make_guard("8.8.8.8")
    problem = guard.problem_of(f"https://{host}/", "#/url")
    assert problem is not None
    assert (problem.pointer, problem.code) == ("#/url", "address")


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://example.com/", "scheme"),
        ("ftp://example.com/", "scheme"),
        ("file:///etc/passwd", "scheme"),
        ("gopher://example.com:25/", "scheme"),
        ("//example.com/", "scheme"),
        ("https:///path", "scheme"),
        ("", "scheme"),
        ("https://user:pw@example.com/", "userinfo"),
        ("https://0177.0.0.1/", "url"),
        ("https://example.com:0/", "url"),
        ("https://example.com:99999/", "url"),
        ("https://exa mple.com/", "url"),
        ("https://[fe80::1%25eth0]/", "url"),
        ("https://example.com\x00/", "url"),
        ("https://example.com/\ud800", "url"),
        ("https://example.com/" + "a" * 2000, "max_length"),
    ],
)
def test_url_that_is_none_is_refused_with_what_is_wrong_about_it(url: str, code: str) -> None:
    problem = make_guard("8.8.8.8").problem_of(url, "#/webhook_url")
    assert problem is not None
    assert problem.code == code


@pytest.mark.parametrize(
    "url", ["https://example.com", "https://例え.jp:8443/x?y=1", "https://[2606:4700::1]/"]
)
def test_public_url_has_no_problem(url: str) -> None:
    assert make_guard("8.8.8.8").problem_of(url, "#/url") is None


def test_http_is_for_operators_who_say_so() -> None:
    assert make_guard("8.8.8.8", http=True).problem_of("http://example.com/", "#/url") is None


@pytest.mark.parametrize(
    "allow", ["10.1.0.0/16", "10.1.0.9/16", "hooks.internal", "HOOKS.internal."]
)
def test_what_the_operator_allows_may_be_called(allow: str) -> None:
    guard = make_guard("10.1.2.3", allow=[allow])
    assert target(guard, "https://hooks.internal/") == ("10.1.2.3",)


def test_allowed_network_opens_no_other() -> None:
    guard = make_guard("10.2.0.1", allow=["10.1.0.0/16", "fd00::/8"])
    with pytest.raises(UrlRefused):
        target(guard, "https://hooks.internal/")


def test_allowed_name_opens_no_other_name() -> None:
    guard = make_guard("10.1.2.3", allow=["hooks.internal"])
    with pytest.raises(UrlRefused):
        target(guard, "https://db.internal/")


def test_name_without_an_address_is_told_to_whoever_registers_it() -> None:
    def resolve(host: str) -> Sequence[str]:
        raise OSError(host)

    with pytest.raises(InvalidRequest, match="has no address now"):
        asyncio.run(Guard(resolve=resolve).admit("https://nobody.invalid/"))


def test_refusal_does_not_tell_what_a_name_means_inside() -> None:
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(make_guard("10.1.2.3").admit("https://db.internal/"))
    assert "10.1.2.3" not in str(refused.value)


def test_resolver_that_hangs_is_not_waited_for() -> None:
    release = threading.Event()

    def resolve(_host: str) -> Sequence[str]:
        release.wait(10)
        return ["8.8.8.8"]

    async def ask() -> None:
        with pytest.raises(UrlRefused, match="has no address"):
            await Guard(resolve=resolve, resolve_s=0.05).target("https://slow.example/")
        release.set()

    asyncio.run(ask())


def test_the_system_knows_this_machine() -> None:
    assert "127.0.0.1" in resolve_host("127.0.0.1")
