"""The site: built from what is committed, whole, by itself, and the same in a browser."""

import subprocess
import sys
from pathlib import Path
from shutil import which
from urllib.parse import unquote, urlsplit

import pytest
from bs4 import BeautifulSoup

from unlearnkit.methods import METHODS

ROOT = Path(__file__).parents[1]
PAGES = ["index", "api", *(path.stem for path in (ROOT / "docs").glob("*.md")), "contributing"]
PAGES += [f"notebooks/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")]
LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "docs/build.py", out], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
    return out


def test_the_site_is_whole_and_needs_no_other_host(site):
    files = sorted(site.rglob("*.html"))
    pages = {path: BeautifulSoup(path.read_text("utf-8"), "html.parser") for path in files}
    assert {site / f"{name}.html" for name in PAGES} <= pages.keys()
    names = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    for path, page in pages.items():
        for tag in page.find_all(LOADED):
            address = tag.get(LOADED[tag.name], "")
            assert not urlsplit(address).netloc, f"{path.name} loads {address}"
        for image in page.find_all("img"):
            assert len(image.get("alt", "").split()) > 1, f"{path.name}: {image}"
        addresses = [tag["href"] for tag in page.find_all(href=True)]
        addresses += [tag["src"] for tag in page.find_all(src=True)]
        for address in addresses:
            parts = urlsplit(address)
            if parts.scheme not in ("http", "https", "data"):
                target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                assert target.exists(), f"{path.name}: {address}"
                assert not parts.fragment or unquote(parts.fragment) in names[target], address
    methods, front = (
        " ".join(pages[site / f"{name}.html"].article.get_text(" ").split())
        for name in ("methods", "index")
    )
    for one in METHODS.values():
        if one.function.__module__.startswith("unlearnkit."):
            assert f"called {one.name} in a profile." in methods and one.paper in methods
            assert f"Needs the retain set: {one.needs_retain}" in methods
    assert "mask_fraction 0.5 number of at least 0 and at most 1" in methods
    assert "unlearnkit.fairness.class_sigma" in names[site / "api.html"]
    assert "C3" in front and "main caveat" in front
    shown = pages[site / "notebooks/01_original_and_retrained.html"]
    assert shown.find_all("table") and not shown.find_all(string=lambda text: "| Method |" in text)
    assert "salun" in (site / "searchindex.js").read_text("utf-8")


@pytest.fixture
def browser():
    where = which("chromium") or which("chromium-browser") or which("google-chrome")
    if not where:
        pytest.skip("no Chromium is installed")
    play = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with play.sync_playwright() as found:
        browser = found.chromium.launch(executable_path=where, args=["--no-sandbox"])
        yield browser
        browser.close()


WIDER = """[...document.querySelectorAll('article *')].filter(e => {
    for (let up = e; up.tagName != 'ARTICLE'; up = up.parentElement)
        if (getComputedStyle(up).overflowX != 'visible') return false;
    return e.getBoundingClientRect().right > innerWidth;
}).map(e => e.outerHTML.slice(0, 80))"""


@pytest.mark.parametrize("width", [1280, 400])
def test_every_page_opens_in_a_browser(site, browser, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    faults = []
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda asked: asked.url.startswith("http") and faults.append(asked.url))
    page.on("requestfailed", lambda asked: faults.append(asked.url))
    for name in PAGES:
        page.goto((site / f"{name}.html").as_uri())
        broken = page.evaluate("[...document.images].filter(i => !i.naturalWidth).map(i => i.src)")
        assert not broken + page.evaluate(WIDER) + faults, name
        assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    page.goto(f"{(site / 'search.html').as_uri()}?q=saliency")
    page.wait_for_selector("ul.search li a")
    assert "Methods" in page.inner_text("ul.search") and not faults
