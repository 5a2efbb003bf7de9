"""Look at every page of the built site in Chromium, as `make look` does, and tell what is amiss.

A page is amiss if the browser reports an error, a link or picture leads nowhere, a formula has no
extent, or on a screen as narrow as a telephone's the page is wider than the screen.
"""

import shutil
import sys
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlparse

from playwright.sync_api import Page, sync_playwright

SITE = Path(__file__).parent / "_build" / "html"
NARROW = {"width": 390, "height": 844}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PICTURES = "[...document.images].filter(i => !i.complete || !i.naturalWidth).map(i => i.src)"
LINKS = "[...document.querySelectorAll('a[href]')].map(a => a.href)"
FLAT = "[...document.querySelectorAll('math')].filter(m => !m.getBoundingClientRect().width).length"
TOO_WIDE = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def amiss(page: Page, path: Path, anchors: dict[Path, set[str]]) -> list[str]:
    """What is wrong with one page."""
    found: list[str] = []

    def hear(message: object) -> None:
        if getattr(message, "type", "error") == "error":
            found.append(f"the browser says: {getattr(message, 'text', message)}")

    page.on("console", hear)
    page.on("pageerror", hear)
    page.on("requestfailed", lambda request: found.append(f"not loaded: {request.url}"))
    page.goto(path.as_uri(), wait_until="load")
    page.evaluate("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    page.wait_for_load_state("networkidle")
    found += [f"no picture: {source}" for source in page.evaluate(PICTURES)]
    if flat := page.evaluate(FLAT):
        found.append(f"{flat} formulas without extent")
    for link in sorted(set(page.evaluate(LINKS))):
        address, anchor = urldefrag(link)
        target = Path(unquote(urlparse(address).path))
        if urlparse(address).scheme != "file":
            continue
        if not target.exists():
            found.append(f"a link to {target}")
        elif anchor and target in anchors and unquote(anchor) not in anchors[target]:
            found.append(f"a link to #{anchor} of {target.name}")
    page.set_viewport_size(NARROW)
    if (over := page.evaluate(TOO_WIDE)) > 0:
        found.append(f"{over} pixels wider than a narrow screen")
    return found


def main() -> int:
    """Look at all pages; the exit status is that of a check."""
    browser = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None
    )
    pages = sorted(SITE.rglob("*.html"))
    if browser is None or not pages:
        print("No Chromium on the PATH." if pages else "No site: run `make docs` first.")
        return 1
    bad = 0
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
        anchors = {}
        page = chromium.new_page()
        for path in pages:
            page.goto(path.as_uri())
            ids = page.evaluate("[...document.querySelectorAll('[id]')].map(e => e.id)")
            anchors[path] = {*ids, "", "top"}
        page.close()
        for path in pages:
            page = chromium.new_page()
            found = amiss(page, path, anchors)
            page.close()
            bad += len(found)
            for line in found:
                print(f"{path.relative_to(SITE)}: {line}")
        chromium.close()
    print(f"{len(pages)} pages, {bad} things amiss")
    return min(bad, 1)


if __name__ == "__main__":
    sys.exit(main())
