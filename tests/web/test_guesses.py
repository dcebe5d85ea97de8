"""Wrong tokens cost time: by address, and for all together."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from helpers.web_client import BEARER, ELSEWHERE, REMOTE, TOKEN, asked
from vitsearch.web.security import BURST, FREE, MAX_ADDRESSES, MAX_WAIT, TokenGuesses, own_address

PAGE = {"Accept": "text/html"}


@pytest.fixture
def remote(indexed: Path) -> Iterator[TestClient]:
    with asked(indexed, REMOTE, ELSEWHERE, follow_redirects=False) as client:
        yield client


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def tried(guesses: TokenGuesses, address: str, number: int) -> float:
    """Try a wrong token, and return how long it has to wait."""
    seconds = guesses.wait(address, f"wrong {number}")
    if not seconds:
        guesses.add_wrong(address, f"wrong {number}")
    return seconds


def test_an_address_waits_longer_each_time() -> None:
    clock = Clock()
    guesses = TokenGuesses(clock)
    waits = []
    for number in range(FREE + 12):
        waits.append(guesses.wait("192.0.2.7", f"wrong {number}"))
        clock.now += waits[-1]
        guesses.add_wrong("192.0.2.7", f"wrong {number}")
    assert waits[: FREE + 4] == [0.0] * FREE + [1.0, 2.0, 4.0, 8.0]
    assert waits[-1] == MAX_WAIT
    assert guesses.wait("192.0.2.8", "right") == 0.0


def test_all_together_have_a_rate_and_those_who_were_right_do_not_wait() -> None:
    clock = Clock()
    guesses = TokenGuesses(clock)
    guesses.add_right("192.0.2.1")
    answered = 0
    for second in range(60):
        clock.now = float(second)
        answered += sum(not tried(guesses, f"10.0.{second}.{n}", n) for n in range(100))
    assert answered == BURST + 59  # of 6,000 from as many addresses
    assert guesses.wait("10.9.9.9", "right") == pytest.approx(1.0)
    assert guesses.wait("192.0.2.1", "another") == 0.0


def test_the_same_wrong_token_is_one_guess() -> None:
    guesses = TokenGuesses(Clock())
    for _ in range(100):  # an old cookie, with every picture of a page
        assert tried(guesses, "192.0.2.7", 0) == 0.0
    assert guesses.wait("192.0.2.7", "right") == 0.0


def test_addresses_of_ipv6_count_by_their_network_and_their_number_is_limited() -> None:
    clock = Clock()
    guesses = TokenGuesses(clock)
    for number in range(FREE):
        guesses.add_wrong(f"2001:db8::{number + 1}", f"wrong {number}")
    assert guesses.wait("2001:db8::ffff", "x") == 1.0
    for number in range(MAX_ADDRESSES + 10):
        guesses.add_wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "wrong")
    assert len(guesses._records) == MAX_ADDRESSES


# -- over HTTP -------------------------------------------------------------------------------------


def bearer(number: int) -> dict[str, dict[str, str]]:
    return {"headers": {"Authorization": f"Bearer wrong-{number}"}}


def parameter(number: int) -> dict[str, dict[str, str]]:
    return {"params": {"token": f"wrong-{number}"}}


def cookie(number: int) -> dict[str, dict[str, str]]:
    return {"headers": {"Cookie": f"vitsearch-8765=wrong-{number}"}}


@pytest.mark.parametrize("guess", [bearer, parameter, cookie])
def test_a_client_that_guesses_is_told_to_wait(
    remote: TestClient, guess: Callable[[int], dict[str, dict[str, str]]]
) -> None:
    statuses = [remote.get("/api/info", **guess(number)).status_code for number in range(9)]
    assert statuses == [401] * FREE + [429] * 4
    right = remote.get("/api/info", headers=BEARER)
    assert (right.status_code, right.headers["retry-after"]) == (429, "1")
    assert right.json()["error"]["code"] == "too_many_requests"
    page = remote.get("/", headers=PAGE | BEARER)
    assert (page.status_code, "try again in 1 s" in page.text) == (429, True)


def test_the_form_is_posted_and_leads_to_where_one_wanted_to_go(remote: TestClient) -> None:
    page = remote.get("/?q=a%26b&page=2", headers=PAGE)
    assert page.status_code == 401
    assert '<form method="post" action="/login">' in page.text
    assert 'name="to" value="/?q=a%26b&amp;page=2"' in page.text
    wrong = remote.post("/login", data={"token": TOKEN + "x", "to": "/?q=a"}, headers=PAGE)
    assert (wrong.status_code, "That is not the token" in wrong.text) == (401, True)
    assert 'value="/?q=a"' in wrong.text
    right = remote.post("/login", data={"token": TOKEN, "to": "/?q=a%26b&page=2"}, headers=PAGE)
    assert (right.status_code, right.headers["location"]) == (303, "/?q=a%26b&page=2")
    assert {"HttpOnly", "SameSite=Strict"} <= set(right.headers["set-cookie"].split("; "))
    assert remote.get("/api/info").status_code == 200  # the client keeps the cookie


@pytest.mark.parametrize(
    "body", [b"", b"token=", b"\xff\xfe", b"&" * 500, b"to=/&token=" + b"x" * 20_000]
)
def test_forms_that_are_none(remote: TestClient, body: bytes) -> None:
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    assert remote.post("/login", content=body, headers=PAGE | kind).status_code == 401


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example/x",
        "https://evil.example/x",
        "/\\evil.example/x",
        "\\\\evil.example",
        "javascript:alert(1)",
        "http://[",
        "\r\nSet-Cookie: a=b",
        "",
    ],
)
def test_the_form_leads_nowhere_else(remote: TestClient, to: str) -> None:
    answer = remote.post("/login", data={"token": TOKEN, "to": to}, headers=PAGE)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/")
    assert not answer.headers["location"].startswith(("//", "/\\"))
    assert "\n" not in answer.headers["location"]


def test_another_site_logs_nobody_in(remote: TestClient) -> None:
    headers = {"Origin": "https://evil.example"}
    assert remote.post("/login", data={"token": TOKEN}, headers=headers).status_code == 403


def test_an_address_loses_its_secrets() -> None:
    from starlette.datastructures import URL

    assert own_address(URL("http://h/a?token=x&q=1&key=y")) == "/a?q=1"
