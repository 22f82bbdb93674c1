"""The page of `affinitynet view` in Chromium: from an event to the mask on the canvas.

    python benchmarks/live_page.py RUN
    python benchmarks/live_page.py RUN --against OLD/src

RUN is a run folder with CAMs and affinities; its first image is opened. It is only read: what the
page would save is answered in the browser. With --against the same is done in turns on a page
served from another source tree, and ratios are those of the medians, the other's over this one's.

A time goes from the event to the end of the drawing, for a slider from before its event is sent;
"shown" is the first task after the next frame, which waits for the screen's 60 Hz. The parts are
medians each, so they don't quite add up: before the request is sent; until the first byte of the
answer, which holds the server's work; until it is read whole; and the drawing. The server's own
work is the processor time of its whole process, an event. Slow while other work is on the machine:
look at the fastest then.
"""

import argparse
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil

VIEWPORT = {"width": 1280, "height": 860}
PAUSE = 50  # milliseconds between two events

# In the page, before its own code. `arm` answers by what the next drawing of a kind took.
WATCH = """
(() => {
  const ask = window.fetch;
  window.fetch = (path, options) => options?.method === "PUT"
    ? Promise.resolve(Response.json({ corrected: false, state: [] })) : ask(path, options);
  const measure = performance.measure.bind(performance);
  let wanted, done;
  performance.measure = (name, options) => {
    const { startTime, duration } = measure(name, options);
    if (name !== wanted) return;
    wanted = null;
    const drawn = startTime + duration;
    requestAnimationFrame(() => setTimeout(() => {
      const asked = performance.getEntriesByType("resource").at(-1);
      done({ began: startTime, drawn, shown: performance.now(), asked: asked.requestStart,
             first: asked.responseStart, read: asked.responseEnd });
    }));
  };
  window.arm = (name) => {
    wanted = name;
    performance.clearResourceTimings();
    window.found = new Promise((resolve) => { done = resolve; });
  };
  window.slide = async (name, id, type, value) => {
    const input = document.getElementById(id);
    arm(name);
    input.value = value;
    const began = performance.now();
    input.dispatchEvent(new Event(type));
    return { ...(await found), began };
  };
})();
"""
Times = dict[str, float]


class Shown(NamedTuple):
    """A page, with the process that serves it."""

    page: Any
    server: Any

    def spent(self) -> tuple[float, float]:
        """Return the processor time so far of server and browser, in milliseconds."""
        below = psutil.Process().children(recursive=True)
        return milliseconds([self.server]), milliseconds(p for p in below if "chrom" in p.name())


def milliseconds(processes: Iterable[Any]) -> float:
    """Return the processor time of processes and of those of their children that have ended."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            total += sum(process.cpu_times()[:4])
    return 1000 * total


def slide(name: str, slider: str, event: str, first: float, step: float) -> Callable[..., Times]:
    """Return what moves a slider and waits for the mask."""

    def work(shown: Shown, turn: int) -> Times:
        sent = [name, f"walk-{slider}", event, first + step * turn]
        if event == "change":  # it is let go 50 ms after its last movement
            shown.page.evaluate(
                "([, ...sent]) => void slide('draft', sent[0], 'input', sent[2])", sent
            )
            shown.page.wait_for_timeout(PAUSE)
        found: Times = shown.page.evaluate("(sent) => slide(...sent)", sent)
        return found

    return work


def click(name: str, tool: str) -> Callable[..., Times]:
    """Return what clicks a pixel with a tool and waits for what is drawn."""

    def work(shown: Shown, turn: int) -> Times:
        page = shown.page
        page.locator(f"[name=tool][value={tool}]").check()
        box = page.locator("#canvas").bounding_box()
        page.evaluate("(name) => arm(name)", name)
        page.mouse.click(box["x"] + 100 + 10 * turn, box["y"] + 100 + 10 * turn)
        found: Times = page.evaluate("found")
        page.locator("#undo").click()
        return found

    return work


# Of the 400 notches of a logarithmic slider: 72 to 170 pixels, around the published width.
WIDTH = ("crf-bilateral_sxy", 300, 3)
ACTIONS = {
    "beta": slide("draft", "beta", "input", 2, 1),
    "steps": slide("draft", "steps", "input", 150, 5),
    "CRF, dragged": slide("draft", WIDTH[0], "input", *WIDTH[1:]),
    "CRF, let go": slide("decide", WIDTH[0], "change", *WIDTH[1:]),
    "affinities of a pixel": click("affinities", "look"),
    "flood": click("flood", "flood"),
}


def parts(found: Times) -> Times:
    """Turn points in time into milliseconds of each part."""
    points = ("began", "asked", "first", "read", "drawn")
    split = {later: found[later] - found[one] for one, later in itertools.pairwise(points)}
    whole = {name: found[name] - found["began"] for name in ("drawn", "shown")}
    return {"to canvas": whole["drawn"], "shown": whole["shown"], **split}


@contextmanager
def served(run: Path, source: Path | None) -> Iterator[tuple[str, Any]]:
    """Serve a run's page from a source tree; gives its address and its process."""
    paths = {} if source is None else {"PYTHONPATH": str(source)}
    command = [sys.executable, "-m", "affinitynet", "view", str(run), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **paths}
    ) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip(), psutil.Process(server.pid)
        finally:
            server.terminate()


def opened(browser: Any, address: str, server: Any) -> Shown:
    """Open the page's first image, and wait until all has been loaded and drawn once."""
    page = browser.new_page(viewport=VIEWPORT)
    page.set_default_timeout(300_000)
    page.add_init_script(WATCH)
    page.goto(address)
    page.locator(".card").first.click()
    page.wait_for_selector("#image-view:not([hidden])")
    page.wait_for_selector("body[aria-busy=false]")
    shown = Shown(page, server)
    for work in ACTIONS.values():
        work(shown, 21)
    return shown


def compare(pages: dict[str, Shown], repeats: int) -> None:
    """Print a table: each action on each page, in turns."""
    heads = ["event", "page", "to canvas", "fastest", "shown", "request", "server", "read", "draw"]
    heads += ["server's work", "browser's work"] + ["ratio"] * (len(pages) > 1)
    print("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for action, work in ACTIONS.items():
        times: dict[str, list[Times]] = {name: [] for name in pages}
        for turn in range(repeats):
            for name, shown in pages.items():
                before = shown.spent()
                found = parts(work(shown, turn))
                time.sleep(PAUSE / 1000)
                spent = map(float.__sub__, shown.spent(), before)
                times[name].append(found | dict(zip(("own", "browser"), spent, strict=True)))
        for name, rows in times.items():
            middle = {part: statistics.median(row[part] for row in rows) for part in rows[0]}
            # Processor times come in ticks of ten milliseconds.
            middle |= {
                part: statistics.mean(row[part] for row in rows) for part in ("own", "browser")
            }
            middle["fastest"] = min(row["to canvas"] for row in rows)
            columns = ("to canvas", "fastest", "shown", "asked", "first", "read", "drawn")
            cells = [f"{middle[part]:.0f}" for part in (*columns, "own", "browser")]
            if len(pages) > 1:
                theirs = statistics.median(row["to canvas"] for row in times["other"])
                cells.append(f"{theirs / middle['to canvas']:.2f}")
            print("| " + " | ".join([action, name, *cells]) + " |", flush=True)


def main() -> None:
    """Print the table of a run's page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--against", type=Path, help="folder that holds another affinitynet/")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    arguments = parser.parse_args()
    from machine import machine_line
    from playwright.sync_api import sync_playwright

    sources = {"this": None} | ({"other": arguments.against} if arguments.against else {})
    with ExitStack() as stack:
        playwright = stack.enter_context(sync_playwright())
        # Containers have no name spaces for its sandbox; the page is our own.
        browser = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox"]
        )
        pages = {
            name: opened(browser, *stack.enter_context(served(arguments.run, source)))
            for name, source in sources.items()
        }
        print(f"{machine_line()}; Chromium {browser.version}; load {os.getloadavg()[0]:.1f}\n")
        compare(pages, arguments.repeats)
        browser.close()


if __name__ == "__main__":
    main()
