"""report.html in a browser: click, drag and type, and see that what changed is right."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report_pages import HOSTILE, hostile_result
from report_reader import Reader, arrived, press, shown, start

from gpu_sdm.atlas import load_atlas
from gpu_sdm.clusters import THRESHOLDS
from gpu_sdm.findings.table3 import to_csv
from gpu_sdm.finished import open_result
from gpu_sdm.report.facts import Facts
from gpu_sdm.report.tables import CLUSTER

pytest.importorskip("selenium", reason="SELENIUM ABSENT: pip install selenium")


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    return hostile_result(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver = start(tmp_path_factory.mktemp("profile"))
    if driver is None:
        pytest.skip("CHROMIUM ABSENT: chromium and chromedriver are not both on the PATH")
    yield driver
    driver.quit()


@pytest.fixture
def reader(browser, out):
    return Reader(browser, out)


def test_it_opens_at_the_threshold_of_the_summary(reader, out):
    finished = open_result(out)
    rule, z = THRESHOLDS["fwe-tfce-0.05"], finished.map("z")
    up = rule.passes(finished.map("p_fwe_tfce"), z)
    down = rule.passes(finished.map("p_fwe_tfce_neg"), -z)
    assert up.any()
    assert down.any()
    reader.expect(int((up | down).sum()))
    reader.choose("side", "negative")
    reader.expect(int(down.sum()))
    reader.choose("side", "two-sided")
    reader.expect(int((finished.map("p_fwe_tfce_two_sided") <= np.float32(0.05)).sum()))


@pytest.mark.parametrize("name", ["z", "g", "i2", "se", "tfce"])
def test_the_count_is_numpys_wherever_the_threshold_is_moved(reader, out, name):
    values = open_result(out).map(name)
    if name == "tfce":
        values = values - open_result(out).map("tfce_neg")
    reader.choose("where", name)
    seen = set()
    for place in (150, 420, 700):
        reader.choose("threshold-slider", place)
        t = float(reader.one("#threshold").get_property("value"))
        sides = ("both",) if name in ("i2", "se") else ("both", "positive", "negative")
        for side in sides:
            if len(sides) > 1:
                reader.choose("side", side)
            passes = {
                "both": (values >= t) | (-values >= t if len(sides) > 1 else False),
                "positive": values >= t,
                "negative": -values >= t,
            }[side]
            reader.expect(int(passes.sum()))
            seen.add(int(passes.sum()))
    assert len(seen) > 2
    reader.choose("side", "both") if len(sides) > 1 else None
    exact = float(np.sort(np.abs(values))[-5])  # a value of the map itself: it counts
    reader.choose("threshold", repr(exact))
    reader.expect(int((np.abs(values) >= np.float32(exact)).sum()))
    assert reader.count() >= 5


def test_presets_and_the_slider_by_keyboard(reader, out):
    from selenium.webdriver.common.keys import Keys

    finished = open_result(out)
    buttons = {b.text: b for b in reader.driver.find_elements("css selector", "#presets button")}
    assert buttons["FWE .05, TFCE"].get_attribute("aria-pressed") == "true"
    buttons["Uncorrected .0025"].click()
    reader.until("document.getElementById('where').value === 'z'")
    z, rule = finished.map("z"), THRESHOLDS["uncorrected-0.0025"]
    passed = rule.passes(finished.map("p"), z) | rule.passes(finished.map("p_neg"), -z)
    reader.expect(int(passed.sum()))
    assert buttons["FWE .05, TFCE"].get_attribute("aria-pressed") == "false"
    before, t = reader.count(), float(reader.one("#threshold").get_property("value"))
    reader.one("#threshold-slider").send_keys(Keys.ARROW_RIGHT * 40)
    after = float(reader.one("#threshold").get_property("value"))
    assert after > t
    reader.expect(int((np.abs(z) >= after).sum()))
    assert reader.count() < before


def test_the_crosshair_follows_click_keys_and_numbers(reader, out):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    finished = open_result(out)
    mm, z, g = finished.space.mm(), finished.map("z"), finished.map("g")

    def check():
        place = reader.place()
        at = np.flatnonzero((mm == place).all(axis=1))
        read = {
            e.get_attribute("data-map"): e.get_attribute("data-value")
            for e in reader.driver.find_elements("css selector", "#readout [data-map]")
        }
        words = reader.one("#readout").text
        if len(at):
            assert np.float32(read["z"]) == z[at[0]]
            assert np.float32(read["g"]) == g[at[0]]
            assert load_atlas().label_of(mm[at])[0] in words
        else:
            assert "outside the mask" in words
            assert not read
        return place

    start = check()
    axial = reader.one(".slice[data-plane=z] canvas")
    pictures = [shown(reader, p) for p in "xyz"]
    axial.send_keys(Keys.ARROW_RIGHT * 2 + Keys.ARROW_UP + Keys.PAGE_DOWN)
    moved = check()
    assert moved == [start[0] + 8, start[1] + 4, start[2] - 4]
    assert [shown(reader, p) for p in "xyz"] != pictures
    reader.js("arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", axial)
    ActionChains(reader.driver).move_to_element(axial).click().perform()
    middle = check()
    window = reader.js("return Viewer.data.window")
    assert abs(middle[0] - np.mean(window[0])) <= 4
    assert abs(middle[1] - np.mean(window[1])) <= 4
    assert middle[2] == moved[2]
    drag = ActionChains(reader.driver).move_to_element(axial).click_and_hold()
    drag.move_by_offset(30, 0).release().perform()
    assert check()[0] > middle[0]  # to the right of the page: to the right of the brain
    for axis, value in zip("xyz", (-14, -24, 10), strict=True):
        field = reader.one(f"#{axis}")
        field.clear()
        field.send_keys(str(value))
    reader.one("#place button[type=submit]").click()
    nearest = mm[np.abs(mm - (-14, -24, 10)).max(axis=1) <= 2][0]
    assert np.abs(np.array(check()) - nearest).max() <= 4
    reader.one("#strongest").click()
    passing = np.abs(z)
    assert check() == mm[np.argmax(passing)].tolist()


def test_a_region_leads_into_the_maps(reader, out):
    row = Facts(open_result(out)).clusters["fwe-tfce-0.05"][-1]
    button = reader.js(
        'return document.querySelectorAll(\'table[data-file="clusters_fwe-tfce-0.05.csv"] tbody '
        "tr:last-child button.link')[0]"
    )
    reader.js("arguments[0].click()", button)
    assert reader.place() == [float(row[f"{a}_mm"]) for a in "xyz"]


def test_tables_sort_by_click_and_by_keyboard_and_download_as_they_stand(reader, out, tmp_path):
    from selenium.webdriver.common.keys import Keys

    rows = Facts(open_result(out)).clusters["uncorrected-0.0025"]
    assert len(rows) >= 2
    table = "table[data-file='clusters_uncorrected-0.0025.csv']"
    heads = reader.driver.find_elements("css selector", f"{table} th")
    at = {h.get_attribute("data-column"): h for h in heads}

    def order():
        cells = reader.driver.find_elements("css selector", f"{table} tbody td:first-child")
        return [c.get_attribute("data-v") for c in cells]

    assert order() == [row["cluster"] for row in rows]
    reader.js("arguments[0].click()", at["sdm_z"].find_element("tag name", "button"))
    rising = sorted(rows, key=lambda row: float(row["sdm_z"]))
    assert order() == [row["cluster"] for row in rising]
    assert at["sdm_z"].get_attribute("aria-sort") == "ascending"
    at["sdm_z"].find_element("tag name", "button").send_keys(Keys.ENTER)
    assert order() == [row["cluster"] for row in rising[::-1]]
    assert at["sdm_z"].get_attribute("aria-sort") == "descending"
    at["label"].find_element("tag name", "button").send_keys(Keys.SPACE)
    assert at["sdm_z"].get_attribute("aria-sort") is None
    assert at["label"].get_attribute("aria-sort") == "ascending"

    reader.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    now = {row["cluster"]: row for row in rows}
    wanted = [{c.name: now[n][c.name] for c in CLUSTER} for n in order()]
    press(reader, table)
    assert arrived(tmp_path / "clusters_uncorrected-0.0025.csv") == to_csv(wanted)
    press(reader, "table[data-file='studies.csv']")
    studies = to_csv(Facts(open_result(out)).study_rows)
    assert HOSTILE.replace('"', '""').encode() in studies
    assert arrived(tmp_path / "studies.csv") == studies


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_nothing_is_wider_than_the_screen(browser, out, width):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 700}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        reader = Reader(browser, out)
        reader.js("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
        assert reader.js("return innerWidth") == width
        root = "document.documentElement"
        assert reader.js(f"return {root}.scrollWidth === {root}.clientWidth")
        assert reader.js(f"return {root}.clientWidth") > width - 20  # less a scroll bar
        wide = "[...document.querySelectorAll('.slice canvas, .plate img')]"
        assert (
            reader.js(f"return Math.max(...{wide}.map((e) => e.getBoundingClientRect().right))")
            <= width
        )
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_dark_print_and_little_motion(browser, out):
    def emulate(media="", **features):
        listed = [{"name": k.replace("_", "-"), "value": v} for k, v in features.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": listed})

    reader = Reader(browser, out)
    look = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    emulate()
    light = reader.js(look, "body", "backgroundColor")
    assert reader.js(look, "html", "scrollBehavior") == "smooth"
    emulate(prefers_color_scheme="dark", prefers_reduced_motion="reduce")
    assert reader.js(look, "body", "backgroundColor") != light
    assert reader.js(look, "html", "scrollBehavior") == "auto"
    emulate("print")
    assert reader.js(look, "nav", "display") == "none"
    assert reader.js(look, ".scroll", "overflowX") == "visible"
    emulate()
    closed = "return document.querySelectorAll('details.panel:not([open])').length"
    before = reader.js(closed)
    assert before > 0
    reader.js("dispatchEvent(new Event('beforeprint'))")
    assert reader.js(closed) == 0
    reader.js("dispatchEvent(new Event('afterprint'))")
    assert reader.js(closed) == before


def test_without_scripts_it_says_so_and_the_rest_stands(browser, out):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((out / "report.html").as_uri())
        assert browser.find_element("id", "viewer-fallback").is_displayed()
        assert not browser.find_element("id", "viewer").is_displayed()
        assert browser.find_element("css selector", "details.panel summary").is_displayed()
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_no_request_leaves_the_page_and_nothing_is_complained_of(browser):
    """Last: over all that the tests above have done."""
    asked = []
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        sent = message["method"] == "Network.requestWillBeSent"
        # The browser's own first page is none of ours.
        if sent and not message["params"]["documentURL"].startswith("chrome:"):
            asked.append(message["params"]["request"]["url"])
    assert any(url.startswith("file:") for url in asked)
    assert not [u for u in asked if u.split(":")[0] not in ("file", "data", "blob")]
    assert {u.split("/")[-1] for u in asked if u.startswith("file:")} == {"report.html"}
    assert browser.get_log("browser") == []
