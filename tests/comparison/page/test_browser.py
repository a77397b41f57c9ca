"""report.html in a real browser, opened from the disk."""

import re
import shutil
import time

import numpy as np
import pytest

pytest.importorskip("plotly")
pytest.importorskip("selenium")
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (BROWSER and DRIVER), reason="needs chromium: scripts/system_packages.sh browser"),
]
TRACES = """return Object.fromEntries([...document.querySelectorAll("#curves .plot")].map((node) =>
    [node.parentNode.querySelector("h3").textContent, (node.data || []).map((trace) => trace.meta).filter(Boolean)]))"""
CHEETAH, HOPPER = "dm_control/cheetah-run (state)", "dm_control/hopper-stand (state)"


@pytest.fixture(scope="module")
def chromium():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(params=[1400, 400])
def open_page(chromium, request):
    """Opens a page in a window of a width."""

    def load(path):
        window = dict(width=request.param, height=900, deviceScaleFactor=1, mobile=request.param < 600)
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", window)
        chromium.get(path.as_uri())
        chromium.execute_script("sessionStorage.clear()")
        chromium.get(path.as_uri())
        return chromium

    return load


def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.1)


def click(driver, selector):
    element = driver.find_element("css selector", selector)
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    element.click()


def film(path, color):
    import imageio

    with imageio.get_writer(path, fps=2) as writer:
        for _ in range(60):
            writer.append_data(np.full((64, 64, 3), color, np.uint8))


def test_page(rows, write, open_page):
    driver = open_page(write(rows, commands=["python examples/compare.py"]))
    assert driver.get_log("browser") == []
    size = driver.execute_script("return [document.documentElement.scrollWidth, innerWidth]")
    assert size[0] <= size[1]
    addresses = driver.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    assert all(address.startswith(("file:", "data:", "blob:")) for address in addresses)
    assert driver.execute_script("return document.querySelectorAll('img[onerror], .plot img').length") == 0
    for link in driver.find_elements("css selector", "nav a"):
        section = driver.find_element("id", link.get_attribute("href").rpartition("#")[2])
        assert link.is_displayed() == section.is_displayed()
    assert driver.execute_script(TRACES)[CHEETAH] == ["difftori", "tdmpc", "sac"]

    click(driver, "#methods input[value=sac]")
    assert all("sac" not in entries for entries in driver.execute_script(TRACES).values())
    assert not driver.find_element("css selector", "tr[data-entry=sac]").is_displayed()
    click(driver, f"#tasks input[value='{HOPPER}']")
    shown = [each.text for each in driver.find_elements("css selector", "#curves h3") if each.is_displayed()]
    assert CHEETAH in shown
    assert HOPPER not in shown
    click(driver, "#axis input[value=cpu]")
    assert driver.execute_script("return document.querySelector('#curves .plot').data.at(-1).x") == [0, 5, 10]
    driver.find_element("css selector", "#reference [value=tdmpc]").click()
    assert "Paired differences from TD-MPC" in driver.find_element("css selector", "#differences").text
    driver.refresh()
    assert "sac" not in driver.execute_script(TRACES)[CHEETAH]  # what was chosen outlives it
    assert driver.get_log("browser") == []


def test_keyboard(rows, write, open_page):
    from selenium.webdriver import ActionChains, Keys

    driver = open_page(write(rows))
    for _ in range(30):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        if driver.switch_to.active_element.get_attribute("value") == "difftori":
            break
    ActionChains(driver).send_keys(Keys.SPACE).perform()
    assert "difftori" not in driver.execute_script(TRACES)[CHEETAH]
    width = "const [a, b] = document.querySelector('#curves .plot')._fullLayout.xaxis.range; return b - a"
    driver.execute_script("document.querySelector('#curves .plot').focus()")
    before = driver.execute_script(width)
    ActionChains(driver).send_keys("+").perform()
    assert driver.execute_script(width) < before
    ActionChains(driver).send_keys("0").perform()
    assert driver.execute_script(width) == pytest.approx(before)


def test_films_play_together_and_hold_the_reload_back(rows, out, write, open_page):
    pytest.importorskip("imageio_ffmpeg")
    (out / "videos").mkdir()
    for name, color in (("sac-cheetah-run-state-seed0", 60), ("difftori-cheetah-run-state-seed0", 200)):
        film(out / "videos" / f"{name}.mp4", color)
    driver = open_page(write(rows, running=["tdmpc-cheetah-run-state-seed0"], reload_s=1.0))
    click(driver, "#play")
    times = "return [...document.querySelectorAll('.films video')].map((video) => video.currentTime)"
    until(lambda: min(driver.execute_script(times), default=0) > 2.5)
    first, second = driver.execute_script(times)
    assert abs(first - second) < 0.5
    assert driver.get_log("browser") == []
    driver.execute_script("window.same = true")
    click(driver, "#pause")
    until(lambda: driver.execute_script("return window.same") is None)


def test_an_open_page_reloads_while_runs_go_on(rows, write, open_page):
    driver = open_page(write(rows[:-1], running=["tdmpc-cheetah-run-state-seed0"], reload_s=1.0))
    click(driver, "#methods input[value=sac]")
    write(rows, running=["tdmpc-cheetah-run-state-seed0"], commands=["a second time"], reload_s=1.0)
    until(lambda: "a second time" in driver.page_source)
    assert "sac" not in driver.execute_script(TRACES)[CHEETAH]


def test_a_page_that_nobody_writes_any_more_says_so(rows, write, open_page):
    page = write(rows, running=["tdmpc-cheetah-run-state-seed0"])
    text = re.sub(r'"written":([\d.]+)', lambda found: f'"written":{float(found[1]) - 600_000}', page.read_text())
    page.write_text(text)
    age = open_page(page).find_element("css selector", "#age").text
    assert age == "10 minutes ago: old, runs were going on and nothing has written it since"
