import pytest

from vidmill.storage import STORES, open_blobs

CLOUDS = [
    "s3://bucket/clips?region=eu-west-1",
    "s3://bucket?region=x&endpoint=http://127.0.0.1:9",
    "oss://bucket/clips?region=cn-hangzhou",
    "az://container/clips",
]


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")


@pytest.mark.parametrize("url", CLOUDS)
def test_clouds_are_opened_without_being_contacted_and_sign_their_links(url: str) -> None:
    link = open_blobs(url).signed_url("t2v_1/1/clip.mp4", expires_in_s=60)
    assert link is not None
    assert "t2v_1/1/clip.mp4?" in link
    assert "secret" not in link


def test_google_is_opened_without_being_contacted() -> None:
    assert open_blobs("gs://bucket/clips") is not None


def test_oss_puts_the_bucket_into_the_host_name() -> None:
    link = open_blobs("oss://films/a?region=cn-hangzhou").signed_url("k/1/f", expires_in_s=60)
    assert link is not None
    assert link.startswith("https://films.oss-cn-hangzhou.aliyuncs.com/a/k/1/f?")


def test_oss_uses_the_inner_network_when_told() -> None:
    url = "oss://films?region=oss-cn-beijing&internal=true"
    link = open_blobs(url).signed_url("k/1/f", expires_in_s=60)
    assert link is not None
    assert link.startswith("https://films.oss-cn-beijing-internal.aliyuncs.com/k/1/f?")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oss://films", "names no region"),
        ("s3:///clips", "names no bucket"),
        ("s3://films?regoin=x", "unknown options"),
        ("file://host/srv", "not a file:///absolute/folder URL"),
    ],
)
def test_a_url_that_lacks_something_says_what(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_blobs(url)


def test_an_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(LookupError, match=r"file.*s3"):
        open_blobs("ftp://somewhere")


def test_every_scheme_of_the_table_is_tried_here() -> None:
    tried = {url.partition(":")[0] for url in CLOUDS} | {"gs", "file", "memory"}
    assert tried == set(STORES)
