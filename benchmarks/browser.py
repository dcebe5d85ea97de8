"""The page in Chromium, with many photos: python benchmarks/browser.py PHOTOS [--tiles 5000]
[--rounds 5] [--width 1280].

`vitsearch serve` serves the indexed folder PHOTOS (benchmarks/page.py makes one with --keep) to a
person at this machine. Measured are, from an empty cache: the bytes of the first view besides
photos; the milliseconds until it is interactive, that is, until its scripts have run and the main
thread has been idle, so that a key is answered; and, scrolled down until so many tiles are there,
the longest tasks of the main thread. The machine's load decides much: run it where nothing else
runs.
"""

import argparse
import statistics
from contextlib import closing
from pathlib import Path
from typing import Any

from machine import machine
from playwright.sync_api import Browser, Page, sync_playwright
from serve import served

# tasks of the main thread over 50 ms, as browsers count them, from the first one on
TASKS = """
window.tasks = [];
new PerformanceObserver((seen) => window.tasks.push(...seen.getEntries().map((task) =>
  [task.startTime, task.duration]))).observe({type: "longtask", buffered: true});
"""
IDLE = "new Promise((done) => requestIdleCallback(() => done(performance.now())))"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def opened(browser: Browser, entrance: str, width: int) -> Page:
    """Return a page with an empty cache of somebody who came in by the entrance."""
    with closing(browser.new_context()) as before:
        before.new_page().goto(entrance, wait_until="networkidle")
        state = before.storage_state()
    context = browser.new_context(viewport={"width": width, "height": 860}, storage_state=state)
    context.add_init_script(TASKS)
    return context.new_page()


def first_view(page: Page, address: str) -> tuple[int, float, float]:
    """Return the bytes besides photos, the milliseconds to interactive, and the longest task."""
    session = page.context.new_cdp_session(page)
    addresses: dict[str, str] = {}
    sizes: dict[str, float] = {}

    def began(event: dict[str, Any]) -> None:
        addresses[event["requestId"]] = event["response"]["url"]

    def ended(event: dict[str, Any]) -> None:
        sizes[event["requestId"]] = event["encodedDataLength"]

    session.on("Network.responseReceived", began)
    session.on("Network.loadingFinished", ended)
    session.send("Network.enable")
    page.goto(address, wait_until="domcontentloaded")
    ready = page.evaluate(IDLE)
    page.wait_for_load_state("networkidle")
    lengths = [length for _, length in page.evaluate("window.tasks")]
    others = [each for each in sizes if "/thumbnail" not in addresses.get(each, "")]
    return int(sum(sizes[each] for each in others)), ready, max(lengths, default=0.0)


def scrolled(page: Page, tiles: int) -> tuple[int, float, list[int]]:
    """Scroll down to so many tiles; return their number, the seconds, and the milliseconds of the
    longest tasks of the main thread meanwhile.
    """
    count, began = 0, page.evaluate("performance.now()")
    while count < tiles:
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(30)
        count = page.evaluate("document.querySelectorAll('.tile').length")
    seconds = (page.evaluate("performance.now()") - began) / 1000
    lengths = [length for start, length in page.evaluate("window.tasks") if start >= began]
    return count, seconds, [round(length) for length in sorted(lengths)[:-4:-1]]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--tiles", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=1280)
    parser.add_argument("--browser", default="/usr/bin/chromium")
    chosen = parser.parse_args()
    print(machine())
    with served(chosen.photos) as (_, entrance), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.browser, args=SWITCHES)
        address = entrance.partition("?")[0]
        views = []
        for _ in range(chosen.rounds):
            page = opened(browser, entrance, chosen.width)
            views.append(first_view(page, address))
        sizes, times, tasks = zip(*views, strict=True)
        print(f"first view besides photos: {statistics.median(sizes) / 1000:.0f} kB")
        spread = f"{min(times):.0f} to {max(times):.0f}"
        print(f"interactive: {statistics.median(times):.0f} ms ({spread})")
        print(f"longest task of the first view: {statistics.median(tasks):.0f} ms")
        count, seconds, longest = scrolled(page, chosen.tiles)
        print(f"{count} tiles in {seconds:.0f} s: longest tasks {longest} ms")


if __name__ == "__main__":
    main()
