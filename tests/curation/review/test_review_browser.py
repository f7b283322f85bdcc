"""The review page in a real browser: look, click, reload."""

import shutil
import threading

import pytest

from internvl_lab.curation.review.flagged import FlaggedFile
from internvl_lab.curation.review.reviews import ReviewLog
from internvl_lab.curation.review.server import ReviewServer

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def server(folder):
    server = ReviewServer(FlaggedFile(folder), ReviewLog(folder / "reviews.jsonl"), "anna")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def page(server):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        path = shutil.which("chromium") or shutil.which("chromium-browser")
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.faults = []
        page.on("response", lambda answer: page.faults.append(answer.url) if answer.status >= 400 else None)
        page.on("pageerror", lambda error: page.faults.append(str(error)))
        page.goto(server.address)
        yield page
        browser.close()


def decisions(folder):
    return {key: taken.decision for key, taken in ReviewLog(folder / "reviews.jsonl").decisions.items()}


def test_click_keep_and_reject_reload_and_use_the_keyboard(page, folder, tmp_path):
    assert page.evaluate("document.querySelector('.images img').naturalWidth") == 480
    assert page.locator("mark").count() == 1
    assert page.evaluate("getComputedStyle(document.querySelector('nav')).position") == "sticky"
    page.screenshot(path=tmp_path / "review.png")
    page.get_by_role("button", name="Keep").click()
    assert page.locator("h1").inner_text().startswith("web:2")
    page.get_by_role("button", name="Reject").click()
    assert decisions(folder) == {"web:1": "keep", "web:2": "reject"}
    assert page.locator("h1").inner_text().startswith("zh:3")
    page.reload()
    assert page.locator("header").inner_text().endswith("2 of 4 decided · reviewer anna")
    assert page.locator("nav i.keep").count() == page.locator("nav i.reject").count() == 1
    page.locator("nav a").nth(0).click()
    assert page.locator(".decided").inner_text().startswith("keep by anna, ")
    page.keyboard.press("s")
    page.wait_for_url("**/sample/1")
    page.keyboard.press("k")
    page.wait_for_url("**/sample/2")
    page.keyboard.press("r")
    page.wait_for_url("**/sample/3")
    assert decisions(folder) == {"web:1": "keep", "web:2": "keep", "zh:3": "reject"}
    # The picture of the last sample is none.
    assert [fault for fault in page.faults if not fault.endswith("/image/3/0")] == []


def test_hostile_text_does_nothing(page):
    page.goto(page.url.split("/?")[0] + "/sample/3")
    page.wait_for_load_state("networkidle")
    assert page.title() == "4/4 review"
    assert page.locator(".turn img").count() == 0
    assert all(fault.endswith("/image/3/0") for fault in page.faults)
