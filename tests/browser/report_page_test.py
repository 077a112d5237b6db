"""The page of c2r report in a browser:  pytest report_page_test.py, with C2R, the program, in the environment.

It needs Debian's chromium, and playwright from PyPI.
"""
import json
import os
import pathlib
import random
import struct
import subprocess

import pytest
from playwright.sync_api import sync_playwright

C2R = os.environ["C2R"]
NUM_TOKENS, NUM_LAYERS, NUM_EXPERTS, TOP_K = 400, 3, 8, 2


def write_ids(path):
    """An .npy file of uint8 [tokens, layers, top_k]: experts e and e + 4 are often together."""
    rng = random.Random(0)
    ids = bytearray()
    for _ in range(NUM_TOKENS * NUM_LAYERS):
        first = rng.randrange(NUM_EXPERTS)
        other = (first + 4) % NUM_EXPERTS if rng.random() < 0.7 else (first + rng.randrange(1, 4)) % NUM_EXPERTS
        ids += bytes([first, other])
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({NUM_TOKENS}, {NUM_LAYERS}, {TOP_K}), }}"
    header = header.ljust(117) + "\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + ids)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")

    def c2r(*words):
        subprocess.run([C2R, *words], cwd=folder, check=True, stdout=subprocess.DEVNULL)

    write_ids(folder / "ids.npy")
    c2r("import", "--from", "npy", "ids.npy", "--num-experts", "8", "--model-name", "<b>bold</b>", "-o", "t.safetensors")
    c2r("plan", "t.safetensors", "--cluster", "1x4", "-o", "plan.json")
    c2r("report", "t.safetensors", "--plan", "plan.json", "--hidden", "64", "-o", "report.html")
    return folder


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Opens the page from the disk; at the end there must have been no error and no request."""
    errors, requests, contexts = [], [], []

    def opened(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((folder / "report.html").as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in requests if not url.startswith(("file://", "blob:"))] == []


def picture(page):
    return page.eval_on_selector("#heat-map", "canvas => canvas.toDataURL()")


def counts(folder, layer):
    """Pair counts by their definition."""
    ids = (folder / "ids.npy").read_bytes()[128:]
    matrix = [[0] * NUM_EXPERTS for _ in range(NUM_EXPERTS)]
    for token in range(NUM_TOKENS):
        start = (token * NUM_LAYERS + layer) * TOP_K
        chosen = ids[start : start + TOP_K]
        for a in chosen:
            for b in chosen:
                matrix[a][b] += 1
    return matrix


def test_every_control_changes_what_is_drawn(open_page):
    page = open_page()
    drawn = {picture(page)}
    page.focus("#heat-layer")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#heat-layer-name") == "1"
    drawn.add(picture(page))
    for values in "share", "lift":
        page.select_option("#heat-values", values)
        drawn.add(picture(page))
    for order in "together", "id":
        page.select_option("#heat-order", order)
        drawn.add(picture(page))
    assert len(drawn) >= 5  # two orders may be the same


def test_the_loads_are_those_of_the_layer_in_the_order_of_the_map(open_page, folder):
    page = open_page()
    page.select_option("#heat-order", "id")
    # The height of each bar: the pixels of its column that are blue, of 120 for the largest load.
    heights = page.evaluate("""() => {
      const canvas = document.getElementById("heat-loads"), context = canvas.getContext("2d");
      return Array.from({length: 8}, (_, e) => {
        const column = context.getImageData((e + 0.4) * canvas.width / 8, 0, 1, canvas.height).data;
        return Array.from({length: canvas.height}, (_, y) => column[4 * y]).filter((red) => red === 11).length;
      });
    }""")
    loads = [counts(folder, 0)[e][e] for e in range(NUM_EXPERTS)]
    for height, load in zip(heights, loads, strict=True):
        assert abs(height - 120 * load / max(loads)) <= 4  # the line of the mean covers some


def test_a_cell_says_its_count(open_page, folder):
    page = open_page()
    page.select_option("#heat-order", "id")
    page.focus("#heat-layer")
    page.keyboard.press("End")
    heat_map = page.locator("#heat-map")
    expected = counts(folder, NUM_LAYERS - 1)
    for a, b in (2, 6), (0, 3), (5, 5):
        size = heat_map.bounding_box()["width"] / NUM_EXPERTS
        heat_map.hover(position={"x": (b + 0.5) * size, "y": (a + 0.5) * size})
        assert f" {expected[a][b]} tokens" in page.inner_text("#heat-cell")


def test_arrow_keys_move_through_the_cells(open_page, folder):
    page = open_page()
    page.select_option("#heat-order", "id")
    page.focus("#heat-map")
    for key in "ArrowDown", "ArrowRight", "ArrowRight", "ArrowDown":
        page.keyboard.press(key)
    text = page.inner_text("#heat-cell")
    # From outside: the first key goes to the first row and column, and so on.
    assert "experts 1 " in text and " and 2 " in text
    assert f" {counts(folder, 0)[1][2]} tokens" in text


def test_names_are_text(open_page):
    page = open_page()
    assert "<b>bold</b>" in page.inner_text("h1")


def test_nothing_is_wider_than_a_phone(open_page):
    page = open_page(viewport={"width": 390, "height": 800})
    for details in page.query_selector_all("summary"):
        details.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_is_dark(open_page):
    page = open_page(color_scheme="dark")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert sum(int(part) for part in colour[4:-1].split(",")) < 150


def test_pictures_on_a_phone_scroll_before_their_text_becomes_too_small(open_page):
    page = open_page(viewport={"width": 390, "height": 800})
    scales = page.eval_on_selector_all(
        ".picture svg", "all => all.map((one) => one.getBoundingClientRect().width / one.viewBox.baseVal.width)"
    )
    assert len(scales) > 5
    assert min(scales) >= 0.69  # of 13 pixels: 9


def test_the_heat_map_says_what_it_shows(open_page, folder):
    page = open_page()
    page.select_option("#heat-order", "id")
    expected = counts(folder, 0)
    most = max(expected[a][b] for a in range(NUM_EXPERTS) for b in range(a))
    assert page.inner_text("#heat-shown") == f"Layer 0: tokens; experts by number. The darkest cell is {most}."


def test_paper_is_light_though_the_screen_is_dark(open_page):
    page = open_page(color_scheme="dark")
    corner = "canvas => Array.from(canvas.getContext('2d').getImageData(1, 1, 1, 1).data)"
    assert sum(page.eval_on_selector("#heat-map", corner)[:3]) < 150  # the diagonal, which is empty
    page.emulate_media(media="print", color_scheme="dark")
    # The page draws again when the browser tells it of the medium, which is with its next frame.
    page.wait_for_function(f"() => ({corner})(document.querySelector('#heat-map'))[0] == 255", timeout=10_000)
    assert sum(page.eval_on_selector("#heat-map", corner)[:3]) == 3 * 255
    ink, back = page.evaluate(
        "[getComputedStyle(document.querySelector('.answer')).color, getComputedStyle(document.querySelector('.answer')).backgroundColor]"
    )
    assert sum(int(part) for part in ink[4:-1].split(",")) < 150
    assert sum(int(part) for part in back[4:-1].split(",")) > 600


def test_it_prints(open_page, folder):
    page = open_page()
    page.emulate_media(media="print")
    assert not page.is_visible(".controls")
    page.pdf(path=folder / "report.pdf")
    assert (folder / "report.pdf").stat().st_size > 20_000


def test_every_number_of_the_figures_is_in_a_table(open_page):
    page = open_page()
    titles = page.eval_on_selector_all("#layers svg title", "all => all.map(one => one.textContent)")
    cells = set(page.eval_on_selector_all("#layers td", "all => all.map(one => one.textContent)"))
    assert len(titles) == NUM_LAYERS * 4
    for title in titles:
        assert title.split(": ")[1].split(" ")[0] in cells


def test_the_data_can_be_saved(open_page, folder):
    page = open_page()
    with page.expect_download() as download:
        page.click("#save")
    saved = json.loads(pathlib.Path(download.value.path()).read_text())
    assert saved["format"] == "c2r-report"
