import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidmill.domain.errors import LinkInvalid, ResultExpired
from vidmill.storage.links import sign, verify

SECRET = bytes(range(32))
EXPIRES_AT = 2_000_000_000

keys = st.text(min_size=1, max_size=40)
secrets = st.binary(min_size=32, max_size=64)
instants = st.integers(1, 10**11)


@given(keys, instants, secrets)
def test_a_link_works_until_it_expires_and_not_after(
    key: str, expires_at: int, secret: bytes
) -> None:
    expires, signature = sign(key, expires_at=expires_at, secret=secret)
    verify(key, str(expires), signature, now=expires_at - 1, secret=secret)
    with pytest.raises(ResultExpired):
        verify(key, str(expires), signature, now=expires_at, secret=secret)


@given(keys, keys)
def test_a_link_opens_no_other_file(key: str, other: str) -> None:
    _, signature = sign(key, expires_at=EXPIRES_AT, secret=SECRET)
    if key != other:
        with pytest.raises(LinkInvalid):
            verify(other, str(EXPIRES_AT), signature, now=0, secret=SECRET)


@given(instants)
def test_a_link_cannot_be_prolonged(expires_at: int) -> None:
    _, signature = sign("a/1/clip.mp4", expires_at=expires_at, secret=SECRET)
    with pytest.raises(LinkInvalid):
        verify("a/1/clip.mp4", str(expires_at + 1), signature, now=0, secret=SECRET)


def test_another_secret_makes_other_links() -> None:
    _, signature = sign("a", expires_at=EXPIRES_AT, secret=SECRET)
    with pytest.raises(LinkInvalid):
        verify("a", str(EXPIRES_AT), signature, now=0, secret=SECRET[::-1])


@given(st.text(max_size=30), st.text(max_size=80))
def test_whatever_stands_in_the_url_is_refused_politely(expires: str, signature: str) -> None:
    with pytest.raises(LinkInvalid):
        verify("a", expires, signature, now=0, secret=SECRET)


@pytest.mark.parametrize("expires", ["", "-1", "+5", "0x10", "1e9", "٢", "9" * 5000, " 2000000000"])
def test_an_expiry_that_is_no_plain_number_is_refused(expires: str) -> None:
    _, signature = sign("a", expires_at=EXPIRES_AT, secret=SECRET)
    with pytest.raises(LinkInvalid):
        verify("a", expires, signature, now=0, secret=SECRET)


def test_an_expired_forgery_is_invalid_not_expired() -> None:
    with pytest.raises(LinkInvalid):
        verify("a", "1", "0" * 64, now=100, secret=SECRET)
