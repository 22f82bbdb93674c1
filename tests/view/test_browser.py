"""The page in a browser: click, drag, paint, reload, by mouse and by keyboard."""

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from affinitynet.data import read_labels
from affinitynet.data.corrections import correction_file
from affinitynet.run_folder.recipe import Recipe

for needed in ("starlette", "uvicorn", "playwright"):
    pytest.importorskip(needed)
CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 400, "height": 800}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        # Containers have no name spaces for its sandbox; the pages are our own.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def address(root: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "affinitynet", "view", str(root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture
def opened(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page; at its end nothing was complained of, and nothing asked for elsewhere."""
    options = getattr(request, "param", {"viewport": WIDE})
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(60_000)  # the first walk waits for torch
    expect.set_options(timeout=60_000)
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda made: asked.append(made.url))
    page.goto(address)
    page.wait_for_selector("body[data-ready]")
    yield page
    context.close()
    assert said == []
    assert [url for url in asked if not url.startswith((address, "blob:"))] == []


def until(page: Page, condition: str) -> None:
    """Wait for a condition. Not wait_for_function, whose eval the page's policy forbids."""
    ends = time.monotonic() + 60
    while not page.evaluate(condition):
        assert time.monotonic() < ends, condition
        page.wait_for_timeout(20)


def open_image(page: Page, name: str) -> None:
    page.locator(".card", has_text=name).first.click()
    expect(page.locator("#image-name")).to_have_text(name)
    until(page, "document.getElementById('canvas').width === 64")


def at(page: Page, x: float, y: float) -> tuple[float, float]:
    """Where a place of the image (in shares of its sides) is on the screen."""
    box = page.locator("#canvas").bounding_box()
    assert box is not None
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


def pixels(page: Page) -> str:
    """What the canvas shows, to compare."""
    return str(page.evaluate("document.getElementById('canvas').toDataURL()"))


def saved(page: Page) -> None:
    expect(page.locator("#saved")).to_have_text("Saved as a correction.")


LOOKS = [
    {"viewport": WIDE, "color_scheme": "light"},
    {"viewport": WIDE, "color_scheme": "dark"},
    {"viewport": NARROW, "color_scheme": "light"},
    {"viewport": NARROW, "color_scheme": "dark"},
]


@pytest.mark.parametrize("opened", LOOKS, indirect=True)
def test_nothing_is_wider_than_the_screen(opened: Page, root: Path) -> None:
    for name in (None, "0001"):
        if name:
            open_image(opened, name)
        width = opened.evaluate("document.documentElement.scrollWidth")
        assert width <= opened.viewport_size["width"]
    light = opened.evaluate("matchMedia('(prefers-color-scheme: light)').matches")
    paper = opened.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) > 380) == light


def test_a_click_lights_up_what_the_walk_ties_to_it(opened: Page) -> None:
    open_image(opened, "0001")
    before = pixels(opened)
    opened.mouse.click(*at(opened, 0.5, 0.5))
    until(opened, "performance.getEntriesByName('affinities').length === 1")
    reach = pixels(opened)
    assert reach != before
    opened.select_option("#spread", "0")
    assert pixels(opened) not in (reach, before)


def test_a_dragged_slider_changes_the_mask(opened: Page) -> None:
    open_image(opened, "0001")
    opened.locator("#walk-steps").focus()
    for _ in range(5):
        opened.keyboard.press("PageDown")
    until(opened, "performance.getEntriesByName('draft').length > 0")
    until(opened, "performance.getEntriesByName('decide').length > 0")
    expect(opened.locator("[name=layer][value=decided]")).to_be_checked()


def test_settings_are_written_into_the_recipe(opened: Page, root: Path) -> None:
    open_image(opened, "0001")
    file = root / "recipe.yaml"
    recipe = Recipe.load(file)
    meanwhile = recipe.walk.model_copy(update={"guard": False, "steps": 9})
    file.write_text(recipe.model_copy(update={"walk": meanwhile}).dump(), encoding="utf-8")
    opened.fill("#walk-beta", "3")
    opened.click("#apply")
    expect(opened.locator("#applied")).to_contain_text("walk.beta = 3")
    expect(opened.locator("#applied")).to_contain_text("--redo propagate")
    expect(opened.locator("#state")).to_contain_text("propagate: stale")
    assert Recipe.load(file).walk == meanwhile.model_copy(update={"beta": 3})
    expect(opened.locator("#walk-steps + output")).to_have_text("9")


def test_what_is_painted_is_there_after_a_reload(opened: Page, root: Path) -> None:
    open_image(opened, "0001")
    opened.keyboard.press("b")
    opened.select_option("#label", "2")
    opened.mouse.move(*at(opened, 0.2, 0.5))
    opened.mouse.down()
    opened.mouse.move(*at(opened, 0.8, 0.5), steps=4)
    opened.mouse.up()
    saved(opened)
    labels = read_labels(correction_file(root, "0001"))
    assert set(np.unique(labels)) == {2, 255}
    row = labels[32]
    assert (row[13:52] == 2).all()
    assert (labels[:24] == 255).all()
    # Through the middle of the stroke, back to the run's own mask.
    opened.keyboard.press("e")
    opened.mouse.click(*at(opened, 0.5, 0.5))
    until(opened, "document.getElementById('saved').textContent.startsWith('Saved')")
    assert read_labels(correction_file(root, "0001"))[32, 32] == 255
    shown = pixels(opened)
    opened.reload()
    until(opened, "document.getElementById('canvas').width === 64")
    expect(opened.locator("#saved")).to_have_text("This image is corrected.")
    until(opened, "document.body.ariaBusy === 'false'")
    assert pixels(opened) == shown
    opened.click("#clear")
    expect(opened.locator("#saved")).to_have_text("Not corrected.")
    assert not correction_file(root, "0001").exists()
    opened.click("#undo")
    saved(opened)
    assert np.array_equal(read_labels(correction_file(root, "0001"))[32, :13], row[:13])


def test_a_flood_spreads_along_the_walk(opened: Page, root: Path) -> None:
    open_image(opened, "0001")
    opened.keyboard.press("f")
    opened.select_option("#label", "1")
    opened.mouse.click(*at(opened, 0.5, 0.5))
    saved(opened)
    some = int((read_labels(correction_file(root, "0001")) == 1).sum())
    assert some > 0
    opened.fill("#level", "0.02")
    saved(opened)
    opened.wait_for_timeout(600)
    few = read_labels(correction_file(root, "0001"))
    assert few[32, 32] == 1
    assert int((few == 1).sum()) < some


def test_everything_goes_by_keyboard(opened: Page, root: Path) -> None:
    keys = opened.keyboard
    keys.press("s")
    keys.press("n")
    expect(opened.locator("#sort")).to_have_value("name")
    opened.evaluate("document.activeElement.blur()")
    keys.press("w")
    assert opened.evaluate("document.activeElement.id") == "show"
    opened.evaluate("document.activeElement.blur()")
    keys.press("ArrowDown")
    keys.press("ArrowRight")
    keys.press("Enter")
    expect(opened.locator("#image-name")).to_have_text("0001")
    until(opened, "document.activeElement.id === 'canvas'")
    keys.press("n")
    expect(opened.locator("#image-name")).to_have_text("0002")
    keys.press("p")
    expect(opened.locator("#image-name")).to_have_text("0001")
    until(opened, "document.activeElement.id === 'canvas'")
    keys.press("1")
    expect(opened.locator("[name=layer][value=cams]")).to_be_checked()
    keys.press("0")
    keys.press("o")
    expect(opened.locator("#opacity")).to_have_value("0.7")
    keys.press("+")
    expect(opened.locator("#zoom")).to_have_value("1.5")
    keys.press("b")
    keys.press(".")
    label = int(opened.locator("#label").input_value())
    keys.down(" ")
    for _ in range(12):
        keys.press("ArrowRight")
    keys.up(" ")
    saved(opened)
    assert read_labels(correction_file(root, "0001"))[32, 44] == label
    keys.press("u")
    expect(opened.locator("#saved")).to_have_text("Not corrected.")
    keys.press("r")
    saved(opened)
    keys.press("?")
    expect(opened.locator("#help")).to_be_visible()
    keys.press("Escape")
    keys.press("k")
    assert opened.evaluate("document.activeElement.id") == "walk-alpha"
    keys.press("Escape")
    expect(opened.locator("#grid-view")).to_be_visible()
    expect(opened.locator(".card", has_text="0001")).to_contain_text("corrected")


def test_filters_and_order(opened: Page) -> None:
    total = opened.locator(".card").count()
    opened.select_option("#class-filter", "0")
    some = opened.locator(".card").count()
    assert 0 < some < total
    opened.select_option("#show", "corrected")
    assert opened.locator(".card").count() == 0
    opened.select_option("#show", "")
    opened.select_option("#class-filter", "")
    until(opened, "document.querySelector('.card').textContent.includes('disagreement')")
    opened.select_option("#sort", "disagreement")
    texts = opened.locator(".card").all_inner_texts()
    found = [int(t.split("disagreement ")[1].split(" ")[0]) for t in texts if "disagreement" in t]
    assert found == sorted(found, reverse=True)
    assert len(found) == 9


def test_a_server_that_is_gone_is_said(browser: Any, root: Path) -> None:
    command = [sys.executable, "-m", "affinitynet", "view", str(root), "--port", "0"]
    page = browser.new_page()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        page.goto(server.stdout.readline().strip())
        page.wait_for_selector("body[data-ready]")
        open_image(page, "0001")
        server.terminate()
    page.locator("[name=layer][value=cams]").check()
    expect(page.locator("#message")).to_contain_text("is affinitynet view still running?")
    page.close()
