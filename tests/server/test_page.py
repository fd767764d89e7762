"""The web page in a real browser: fake microphone, files, downloads, keys, accessibility."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
import soundfile

import voxmlx
from tests.engine.models import noise
from tests.server.running import running, wav
from voxmlx.server.settings import ServerSettings

sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium"),
]
KEY = "correct-horse-battery"


@pytest.fixture(scope="module")
def playwright():
    with sync_api.sync_playwright() as playwright:
        yield playwright


def launch(playwright, microphone):
    """A browser whose microphone hears a file."""
    return playwright.chromium.launch(
        executable_path=CHROMIUM,
        args=[
            "--no-sandbox",
            "--use-fake-ui-for-media-stream",
            "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}",
        ],
    )


@pytest.fixture(scope="module")
def browser(playwright, tmp_path_factory):
    recording = tmp_path_factory.mktemp("sound") / "speech.wav"
    recording.write_bytes(wav(noise(6, seed=21), 16000))
    browser = launch(playwright, recording)
    yield browser
    browser.close()


@pytest.fixture
def page(browser, server):
    context = browser.new_context(permissions=["microphone", "clipboard-read", "clipboard-write"])
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Policy" in m.text else None)
    page.goto(server.url)
    yield page
    context.close()
    assert errors == []


def text_of(page) -> str:
    return page.locator("#settled").inner_text() + page.locator("#open").inner_text()


def test_microphone(page):
    page.locator("#model", has_text="tiny").wait_for()
    page.get_by_role("button", name="Start microphone").click()
    page.get_by_text("Listening.").wait_for()
    expect = sync_api.expect
    expect(page.locator("#open-newest")).to_have_text(re.compile(r"\S"))
    expect(page.locator("#open-settled")).to_have_text(re.compile(r".{20}"), timeout=20_000)
    expect(page.locator("#level")).to_have_attribute("aria-valuenow", re.compile(r"\d\d"))
    assert re.fullmatch(r"\d+\.\d s", page.locator("#lag").inner_text())
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Done.").wait_for()
    assert len(text_of(page)) > 20
    assert page.locator("#open").inner_text() == ""
    assert page.get_by_role("button", name="Start microphone").is_enabled()


def test_file_downloads_and_copy(page, tmp_path, pipeline):
    samples = noise(4, seed=5)
    recording = tmp_path / "talk <b>.wav"
    recording.write_bytes(wav(samples))
    page.locator("#file").set_input_files(recording)
    page.get_by_text("Done.").wait_for()

    shown = " ".join(p.lstrip("0123456789:") for p in page.locator("#settled p").all_inner_texts())
    quantised = (samples * 32768).clip(-32768, 32767).round() / 32768
    expected = pipeline.generate(quantised.astype("float32"), sample_rate=16000)
    assert shown.split() == expected.text.split()
    files = {}
    for kind in ("TXT", "SRT", "VTT"):
        with page.expect_download() as waiting:
            page.get_by_role("button", name=f"Download {kind}").click()
        files[kind] = waiting.value.path().read_text()
    assert files["TXT"].split() == expected.text.split()
    assert files["SRT"].startswith("1\n00:00:0") and files["VTT"].startswith("WEBVTT\n\n00:0")
    lines = [line for line in files["SRT"].splitlines() if line and "-->" not in line]
    words = " ".join(line for line in lines if not line.isdigit()).split()
    assert "".join(words).startswith(expected.words[0].text)
    page.get_by_role("button", name="Copy text").click()
    page.get_by_text("Copied.").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").split() == expected.text.split()
    page.get_by_role("button", name="Clear").click()
    assert text_of(page).strip() == ""


def test_bad_file_is_reported(page, tmp_path):
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"nothing")
    page.locator("#file").set_input_files(bad)
    page.locator("#message.error").wait_for()
    assert "not a recording" in page.locator("#message").inner_text()
    assert page.get_by_role("button", name="Start microphone").is_enabled()


def test_keyboard_alone(page):
    """Everything is reached with Tab, and the delay moves with the arrows."""
    page.locator("#model", has_text="tiny").wait_for()
    seen = []
    for _ in range(4):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.id"))
    assert seen == ["microphone", "file", "delay", "captions"]
    page.locator("#delay").focus()
    page.keyboard.press("End")
    assert page.locator("#delay-value").inner_text() == "2400 ms"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#delay").get_attribute("aria-valuetext") == "1200 milliseconds"
    page.locator("#microphone").focus()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Stop").wait_for()
    page.keyboard.press("Enter")
    page.get_by_text("Done.").wait_for()


def test_names_for_screen_readers(page):
    for role, name in (
        ("slider", "Delay"),
        ("meter", "Microphone level"),
        ("button", "Start microphone"),
        ("region", "Captions"),
        ("log", ""),
        ("heading", "voxmlx"),
    ):
        assert page.get_by_role(role, name=name).count() == 1, role
    assert page.get_by_label("Open a file").count() == 1
    assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_width_scrolls_sideways_and_text_has_contrast(page, scheme, width):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colours = page.evaluate(
        "[...document.querySelectorAll('h1, #model, #empty, .newest, .primary')].map(e => {"
        "let b = e; while (getComputedStyle(b).backgroundColor === 'rgba(0, 0, 0, 0)') "
        "b = b.parentElement; return [getComputedStyle(e).color, "
        "getComputedStyle(b).backgroundColor]; })"
    )
    for text, back in colours:
        assert contrast(text, back) >= 4.5, (text, back)


def contrast(one: str, other: str) -> float:
    """WCAG's ratio of two CSS colours."""

    def luminance(colour: str) -> float:
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_key_is_asked_for(browser, model_folder):
    settings = ServerSettings(port=0, api_keys=(KEY,), model_name="tiny")
    with running(model_folder, settings) as server:
        context = browser.new_context(permissions=["microphone"])
        page = context.new_page()
        page.goto(server.url)
        page.get_by_label("API key").fill(KEY)
        page.get_by_role("button", name="Use key").click()
        page.get_by_text("The key fits.").wait_for()
        page.get_by_role("button", name="Start microphone").click()
        page.get_by_text("Listening.").wait_for()
        sync_api.expect(page.locator("#captions")).to_contain_text("with", timeout=20_000)
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Done.").wait_for()
        context.close()


def test_words_of_a_recording_appear(playwright, tmp_path):
    """The built-in model hears an example through the browser's microphone."""
    assets = Path(voxmlx.__file__).parent / "assets"
    samples, rate = soundfile.read(assets / "examples" / "american_1.ogg", dtype="float32")
    said = dict(
        line.split("\t")[:2] for line in (assets / "examples" / "text.tsv").read_text().splitlines()
    )["american_1.ogg"].split()
    recording = tmp_path / "speech.wav"
    recording.write_bytes(wav(samples, rate))
    with running(assets / "tiny") as server:
        browser = launch(playwright, f"{recording}%noloop")
        page = browser.new_context(permissions=["microphone"]).new_page()
        page.goto(server.url)
        page.get_by_role("button", name="Start microphone").click()
        page.get_by_text("Listening.").wait_for()
        page.wait_for_timeout(1000 * len(samples) / rate + 1500)
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("Done.").wait_for(timeout=120_000)
        if "VOXMLX_SCREENSHOT" in os.environ:
            page.screenshot(path=os.environ["VOXMLX_SCREENSHOT"])
        shown = text_of(page).split()
        browser.close()
    heard = sum(word in shown for word in said)
    assert heard > 0.7 * len(said), " ".join(shown)
