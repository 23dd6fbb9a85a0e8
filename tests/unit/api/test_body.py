"""JSON that means one thing, or a refusal that says why."""

import pytest

from vidmill.api.body import parse
from vidmill.domain.errors import MalformedBody


@pytest.mark.parametrize(
    ("body", "hint"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"{", "line 1"),
        (b"{'prompt': 1}", "line 1"),
        (b'{"prompt": "x"} x', "Extra data"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"m": {"a": 1, "a": 2}}', "twice"),
        (b'{"duration": NaN}', "NaN"),
        (b'{"duration": Infinity}', "Infinity"),
        (b'{"duration": -Infinity}', "-Infinity"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "JSON"),
        (b"[" * 60_000, "deeply"),
        (b'{"a":' * 10_000, "deeply"),
        (b'{"prompt": "\xff"}', "UTF-8"),
        ('{"prompt": "x"}'.encode("utf-16"), "UTF-8"),
        (b'\xef\xbb\xbf{"prompt": "x"}', "line 1"),
        (b'{"prompt": "a\nb"}', "control character"),
        (b'{"prompt": "\x00"}', "control character"),
    ],
)
def test_what_is_not_strict_json_is_refused_with_the_reason(body: bytes, hint: str) -> None:
    with pytest.raises(MalformedBody, match=hint):
        parse(body)


def test_what_is_json_is_returned() -> None:
    assert parse('{"prompt": "红球", "n": [1, 2.5, null, true]}'.encode()) == {
        "prompt": "红球",
        "n": [1, 2.5, None, True],
    }
