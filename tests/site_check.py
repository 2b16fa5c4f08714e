"""Click through the built site in a headless browser: `make site-check`.

It needs a Chromium, whose path is in CHROMIUM or found by its name.
"""

import functools
import os
import shutil
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parents[1] / "docs" / "_build"
SIZES = ((1280, 800), (390, 844))


class Quiet(SimpleHTTPRequestHandler):
    """A server that says nothing."""

    def log_message(self, *args):
        """Say nothing."""


def visit(page, home):
    """Every page: nothing wider than the screen, no error, no request off the machine."""
    for path in sorted(set(SITE.rglob("*.html")) - set((SITE / "_static").rglob("*"))):
        page.goto(f"{home}/{path.relative_to(SITE)}")
        wide = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        assert wide <= 1, f"{path.name} is {wide} pixels wider than the screen"


def click(page, home):
    """Search, a card of the gallery, the switch of the theme, and a formula."""
    page.goto(f"{home}/index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("impute")
    page.keyboard.press("Enter")
    page.wait_for_selector("#search-results li a")

    page.goto(f"{home}/auto_examples/index.html")
    page.locator(".sphx-glr-thumbcontainer a").first.click()
    page.wait_for_selector("div.highlight")

    page.locator("button.theme-switch-button:visible").click()
    page.locator("button.theme-change-button[data-mode=dark]:visible").click()
    assert page.get_attribute("html", "data-theme") == "dark", "the theme did not change"

    page.goto(f"{home}/user_guide.html")
    page.wait_for_selector("mjx-container")


def main():
    """Serve the site, and look at it at both widths."""
    # an extra of its own, which tests do not need
    from playwright.sync_api import sync_playwright

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=SITE))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = f"http://127.0.0.1:{server.server_port}"
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium. Install one, or say where it is: CHROMIUM=/path make site-check")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for width, height in SIZES:
            page = browser.new_page(viewport={"width": width, "height": height})
            errors, requests = [], []
            page.on(
                "console",
                lambda message, errors=errors: errors.append(message.text) if message.type == "error" else None,
            )
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on(
                "response",
                lambda response, errors=errors: (
                    errors.append(f"{response.url} from {response.frame.url}") if response.status >= 400 else None
                ),
            )
            page.on("request", lambda request, requests=requests: requests.append(request.url))
            visit(page, home)
            if width > 1000:
                click(page, home)

            away = {url for url in requests if not url.startswith((home, "data:", "blob:"))}
            assert not errors, errors
            assert not away, away
            print(f"{width} pixels: no error, no request off the machine")
        browser.close()


if __name__ == "__main__":
    main()
