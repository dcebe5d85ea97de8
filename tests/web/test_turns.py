"""Requests take turns, in the order in which they came; results that are a little old serve while
one thread computes new ones.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send

from vitsearch.web.middleware import TakeTurns
from vitsearch.web.pages import (
    Filters,
    PageQuery,
    PhotoLinks,
    PickedPhoto,
    UploadedRef,
    address,
)
from vitsearch.web.pages.cache import Recent


def scope(path: str, method: str = "GET") -> Scope:
    return {"type": "http", "method": method, "path": path}


async def receive() -> Message:
    return {"type": "http.request"}


async def send(_: Message) -> None:
    pass


class Computing:
    """An application whose answers begin when `let_go` is called, and end never."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._waiting: list[asyncio.Event] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun.append(scope["path"])
        self._waiting.append(event := asyncio.Event())
        await event.wait()
        await send({"type": "http.response.start"})
        await asyncio.Event().wait()  # a client that does not read

    def let_go(self) -> None:
        self._waiting.pop(0).set()


def watched(watch: Callable[[TakeTurns, Computing], Awaitable[None]]) -> None:
    async def run() -> None:
        app = Computing()
        await watch(TakeTurns(app, 2), app)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    asyncio.run(run())


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_requests_take_turns_in_the_order_in_which_they_came() -> None:
    async def watch(turns: TakeTurns, app: Computing) -> None:
        tasks = [
            asyncio.ensure_future(turns(scope(f"/{number}"), receive, send)) for number in range(5)
        ]
        for begun in (2, 3, 4, 5):
            await settle()
            assert app.begun == [f"/{number}" for number in range(begun)]
            app.let_go()
        assert not any(task.done() for task in tasks)

    watched(watch)


@pytest.mark.parametrize(
    ("path", "method"),
    [("/static/app.css", "GET"), ("/healthz", "GET"), ("/api/labels", "GET"), ("/photo", "POST")],
)
def test_what_is_quick_long_or_comes_slowly_takes_no_turn(path: str, method: str) -> None:
    async def watch(turns: TakeTurns, app: Computing) -> None:
        tasks = [asyncio.ensure_future(turns(scope("/"), receive, send)) for _ in range(3)]
        others = [asyncio.ensure_future(turns(scope(path, method), receive, send)) for _ in "12"]
        await settle()
        assert sorted(app.begun) == sorted(["/", "/", path, path])
        assert len(tasks) + len(others) == 5

    watched(watch)


def test_a_request_that_fails_or_is_left_gives_its_turn_back() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError

    async def run() -> list[type[BaseException]]:
        turns = TakeTurns(broken, 1)
        ended = []
        for _ in range(3):
            try:
                await asyncio.wait_for(turns(scope("/"), receive, send), 5)
            except Exception as error:
                ended.append(type(error))
        return ended

    assert asyncio.run(run()) == [ValueError] * 3


def test_one_thread_computes_and_the_others_get_the_last_result() -> None:
    recent: Recent[int] = Recent()
    computing, go_on = threading.Event(), threading.Event()

    def slowly() -> int:
        computing.set()
        assert go_on.wait(10)
        return 2

    assert recent.get("a", lambda: 1) == 1
    assert recent.get("a", lambda: 3) == 1  # still fresh
    thread = threading.Thread(target=recent.get, args=("b", slowly))
    thread.start()
    assert computing.wait(10)
    assert recent.get("c", lambda: 3) == 1  # another state, which another thread computes
    go_on.set()
    thread.join()
    assert recent.get("b", lambda: 3) == 2


picks = st.builds(PickedPhoto, st.integers(1, 9), st.sampled_from([1.0, 0.5, -0.25]))
searches = st.builds(
    PageQuery,
    words=st.text(max_size=5),
    picks=st.lists(picks, max_size=3, unique_by=lambda pick: pick.photo_id).map(tuple),
    uploads=st.lists(st.builds(UploadedRef, st.just("a" * 32), st.just(0.5)), max_size=1).map(
        tuple
    ),
    filters=st.builds(Filters, label=st.text(max_size=3), where=st.text(max_size=3)),
    page=st.integers(1, 3),
)


@given(searches, st.integers(1, 12))
def test_links_are_those_of_the_search_itself(query: PageQuery, photo_id: int) -> None:
    links = PhotoLinks(query)
    assert (links.page(photo_id), links.like(photo_id), links.unlike(photo_id)) == (
        address(f"/photos/{photo_id}", query.pairs(page=True)),
        query.like(photo_id).address(),
        query.unlike(photo_id).address(),
    )


def test_links_without_a_search() -> None:
    assert PhotoLinks(None).page(3) == "/photos/3"
