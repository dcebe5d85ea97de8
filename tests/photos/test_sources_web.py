"""Photos at addresses that Parquet files name, fetched from a real server that is slow, busy, gone,
endless, leads in circles, or has something else.
"""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from helpers.photo_site import Site, jpeg, photo_site
from helpers.proxies import make_certificate
from vitsearch.errors import CollectionError, PhotoError
from vitsearch.photos.sources import Entry, open_source, web


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(web, "PAUSES", (0.01, 0.02, 0.03))
    monkeypatch.setattr(web, "FETCH_SECONDS", 0.5)
    with photo_site() as server:
        yield server


def fetch(*urls: str, private: bool = True) -> list[bytes | str]:
    entries = [Entry(url, 0, 0) for url in urls]
    answers = web.fetched(entries, private=private)
    return [str(each) if isinstance(each, PhotoError) else each for each in answers]


def test_photos_are_fetched_in_order_a_few_at_a_time(site: Site) -> None:
    shades = range(0, 200, 2)
    assert fetch(*(site.url(f"photo/{shade}") for shade in shades)) == [*map(jpeg, shades)]
    assert site.at_once == web.AT_ONCE_OF_HOST
    assert site.agents == {web.AGENT}
    assert fetch(site.url("hop/photo/7"), site.url("busy/photo")) == [jpeg(7), b"<html>"]
    assert site.asked["busy/photo"] == 3


def test_a_host_is_one_whatever_user_its_addresses_name(site: Site) -> None:
    users = [site.url(f"photo/{each}").replace("//", f"//user{each}@") for each in range(0, 90, 3)]
    assert fetch(*users) == [jpeg(each) for each in range(0, 90, 3)]
    assert site.at_once == web.AT_ONCE_OF_HOST


@pytest.mark.parametrize(
    ("name", "reason", "times"),
    [
        ("gone", "cannot be fetched: HTTP 404", 1),
        ("down", "not fetched for now: HTTP 503", 4),
        ("drip", "not fetched for now: it takes longer than 0.2 s", 4),
        ("headers", "not fetched for now: it takes longer than 0.2 s", 4),
        ("continue", "not fetched for now: it takes longer than 0.2 s", 4),
        ("trailers", "not fetched for now: it takes longer than 0.2 s", 4),
        ("cut", "not fetched for now: ", 4),
        ("loop", "its address leads on more than 5 times", 6),
        ("huge", "the file has 1,000,000,000,000 bytes, over the cap of ", 1),
    ],
)
def test_what_cannot_be_fetched_says_why(
    site: Site, monkeypatch: pytest.MonkeyPatch, name: str, reason: str, times: int
) -> None:
    if "longer" in reason:
        monkeypatch.setattr(web, "FETCH_SECONDS", 0.2)
    [answer] = fetch(site.url(name))
    assert isinstance(answer, str)
    assert answer.startswith(reason)
    assert site.asked[name] == times


def test_a_photo_without_an_end_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_FETCHED", 1_000_000)
    assert fetch(site.url("endless")) == ["the file has over 1,000,000 bytes, the cap"]


def test_a_host_that_is_silent_is_soon_asked_once_for_each(site: Site) -> None:
    urls = [site.url(f"down/{number}") for number in range(8)]
    assert {*fetch(*urls)} == {"not fetched for now: HTTP 503"}
    counts = [site.asked[f"down/{number}"] for number in range(8)]
    assert sorted(counts)[:4] == [1, 1, 1, 1]
    assert counts[0] == 4


def test_a_server_that_does_not_answer_may_later() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(web, "PAUSES", ())
        [answer] = fetch("http://127.0.0.1:9/a.jpg")
    assert str(answer).startswith("not fetched for now: ")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b.jpg", "http://", "http://a:x/", "http://[::1/a", ""]
)
def test_what_is_no_address_is_not_asked_for(url: str) -> None:
    [answer] = fetch(url)
    assert str(answer).startswith("not an address of the web")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.169.254", "[::1]", "[::ffff:127.0.0.1]"]
)
def test_private_networks_are_left_alone(host: str) -> None:
    [answer] = fetch(f"http://{host}/a.jpg", private=False)
    assert str(answer).endswith("is in a private network, from which nothing is fetched")


@pytest.mark.parametrize(
    "host", ["::127.0.0.1", "::ffff:0:127.0.0.1", "64:ff9b::10.0.0.1", "2002:a00:1::1", "fec0::1"]
)
def test_a_private_address_within_one_of_ipv6_is_private(host: str) -> None:
    [answer] = fetch(f"http://[{host}]/a.jpg", private=False)
    assert str(answer).endswith("is in a private network, from which nothing is fetched")


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert web._is_public(address)


def test_no_address_leads_into_a_private_network(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "_is_public", lambda address: address == "127.0.0.1")
    [answer] = fetch(site.url("inside"), private=False)
    assert answer == "::1 is in a private network, from which nothing is fetched"


@pytest.mark.slow
def test_a_certificate_that_is_not_valid_is_named(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "photos.crt", tmp_path / "photos.key")
    with photo_site(context) as server:
        [answer] = fetch(f"https://127.0.0.1:{server.server_port}/photo/1")
    assert str(answer).startswith("its certificate is not valid (")


def test_lists_as_laion_has_them(site: Site, tmp_path: Path) -> None:
    urls = [site.url(f"photo/{shade}") for shade in (1, 2, 1)]
    table = {"URL": [*urls, None], "TEXT": ["a  cat", None, "again", "none"]}
    file = tmp_path / "part.parquet"
    pyarrow.parquet.write_table(pyarrow.table(table), file)
    with pytest.raises(CollectionError, match=r"names photos by addresses in its column URL: they"):
        open_source(file)
    source = open_source(file, urls="private")
    entries = [*source.entries()]
    assert [(entry.path, entry.caption) for entry in entries] == [
        (urls[0], "a cat"),
        (urls[1], None),
    ]
    assert [*source.read(entries)] == [jpeg(1), jpeg(2)]
    [refused, _] = open_source(file, urls="public").read(entries)
    assert isinstance(refused, PhotoError)
