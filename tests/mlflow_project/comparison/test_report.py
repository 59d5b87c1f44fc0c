from __future__ import annotations

import shutil
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.origin import Origin
from mlflow_project.comparison.plot import BESIDE
from mlflow_project.comparison.report import p_text, render
from mlflow_project.vocabulary import COMMAND_TAG, COMMIT_TAG

HOSTILE = [
    "<script>document.title='pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "'-alert(1)-'",
    "</style></script><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% raw %}",
]


class Page(HTMLParser):
    """Tags with their attributes, and the texts of the cells of the table `of`."""

    def __init__(self, html: str, of: str = "leaderboard") -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self._of, self._inside = of, False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._inside = dict(attrs).get("id") == self._of
        if self._inside and tag == "tr":
            self.rows.append([])
        if self._inside and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "table"

    def handle_data(self, data):
        if self._inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_the_leaderboard_shows_ties_as_ties(evaluation):
    same = [evaluation("sstt", step) for step in (1, 2, 3)]
    rows = Page(render(compare(same), "sweep")).rows[1:]
    assert [row[:3] for row in rows] == [["1-3", f"step-{step}", "50.0 %"] for step in (1, 2, 3)]


def test_what_was_trained_from_another_checkpoint_stands_beside_it(evaluation):
    first, start = evaluation("sttt", 400), evaluation("sstt", 800)
    tags = {"lineage.parent.sha256": start.checkpoint}
    better = evaluation("ssst", 4, sweep="e" * 32, sweep_name="rl", tags=tags, checkpoint="b" * 64)
    circles = Page(render(compare([first, start, better]), "main")).of("circle")
    at = sorted((float(each["cx"]), -float(each["cy"])) for each in circles)
    assert at == sorted(at, key=lambda point: point[1]), "further right is better: 400, 800, 800 with rl"
    assert at[2][0] == at[1][0] + BESIDE


def test_checkpoints_that_claim_to_come_of_each_other_are_shown(evaluation):
    tags = [{"lineage.parent.sha256": each * 64} for each in "ab"]
    pair = [evaluation("st", step, tags=tags[step - 1], checkpoint="ba"[step - 1] * 64) for step in (1, 2)]
    assert len(Page(render(compare(pair), "cycle")).of("circle")) == 2


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_from_outside_becomes_markup(evaluation, name):
    harmless, hostile = (
        [
            evaluation("stds", 1, videos=2, name=text, sweep_name=text),
            evaluation("ttss", 2, videos=2, name=text, settings={"environment": {"task": text, "prompt": text}}),
            evaluation("ssss", 3, name=text, sweep="e" * 32, sweep_name=text, run=text, settings={}),
        ]
        for text in ("harmless", name)
    )
    expected, page = (Page(render(compare(each), each[0].name)) for each in (harmless, hostile))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in expected.tags]
    assert [sorted(attributes) for _, attributes in page.tags] == [sorted(each) for _, each in expected.tags]
    assert any(name in cell for row in page.rows for cell in row)


def test_videos_of_disagreements_come_first(evaluation):
    page = Page(render(compare([evaluation("sstt", 1, videos=4), evaluation("stst", 2, videos=4)]), "sweep"))
    videos = [each for each in page.of("video") if "data-run" in each]
    seeds = [each["data-path"] for each in videos if each["data-run"] == f"{1:032x}"]
    assert seeds == [f"videos/episode_00{number}.mp4" for number in (1, 2, 0, 3)]
    assert len(videos) == 8
    assert all("src" not in each and {"muted", "loop", "playsinline"} <= each.keys() for each in videos)


def test_nothing_is_loaded_from_elsewhere(evaluation):
    html = render(compare([evaluation("ss", 1, videos=1), evaluation("tt", 2, videos=1)]), "sweep")
    page = Page(html)
    assert not {"link", "img", "iframe", "base"} & {tag for tag, _ in page.tags}
    assert all("src" not in attributes and "href" not in attributes for _, attributes in page.tags)
    assert "prefers-color-scheme: dark" in html


def test_a_missing_episode_or_video_leaves_a_gap(evaluation):
    html = render(compare([evaluation("sstt", 1, videos=1), evaluation("st", 2, videos=0)]), "sweep")
    assert html.count("not filmed") == 1
    assert html.count("<video muted loop") == 1


def test_unpaired_sweeps_are_shown_apart_with_the_reason(evaluation):
    other = evaluation("tt", 2, sweep="e" * 32, sweep_name="other", settings={})
    html = render(compare([evaluation("ss", 1), other]), "two")
    assert "Not paired: " in html
    assert "unpaired<small>" in html
    assert "group 2" in html


def test_a_single_checkpoint_has_a_page(evaluation):
    html = render(compare([evaluation("s")]), "one")
    assert "nothing to compare" in html
    assert Page(html, "matrix").rows == []


@pytest.mark.parametrize(
    ("p_value", "text"), [(0.0004, "< 0.001"), (0.001, "= 0.001"), (0.04251, "= 0.043"), (1, "= 1")]
)
def test_p_values(p_value, text):
    assert p_text(p_value) == text


def test_a_tie_is_called_a_tie(evaluation):
    html = render(compare([evaluation("sst", 1), evaluation("tts", 2)]), "sweep")
    assert html.count("tie, p = 1") == 2
    assert "2 : 1" in html
    clear = render(compare([evaluation("s" * 20, 1), evaluation("t" * 20, 2)]), "sweep")
    assert "tie, " not in clear
    assert "p &lt; 0.001" in clear


def reached(evaluation, *flags: str):
    """The evaluation, in which episode number k has reached the subtasks whose initials are in ``flags[k]``."""
    rows = [
        replace(row, subtasks={"stack_1": "s" in had, "grasp_1": "g" in had})
        for row, had in zip(evaluation.rows, flags, strict=True)
    ]
    return replace(evaluation, rows=tuple(rows))


def test_the_funnel_says_where_episodes_were_lost(evaluation):
    first = reached(evaluation("sstt", 1), "gs", "gs", "g", "")
    second = reached(evaluation("tttt", 2), "gs", "g", "g", "g")
    html = render(compare([first, second]), "sweep")
    rows = Page(html, "funnel").rows
    assert rows[0] == ["", "grasp_1", "→ stack_1", "→ success"], "in the order in which episodes come so far"
    assert rows[1] == ["step-1", "75 %", "50 %−1", "50 %"]
    assert rows[2] == ["step-2", "100 %", "25 %−3", "0 %−1"]
    assert Page(render(compare([evaluation("st", 1)]), "sweep"), "funnel").rows == []


def test_the_filter_finds_failures_and_disagreements(evaluation):
    pair = compare([evaluation("sst", 1, videos=1), evaluation("stt", 2)])
    cells = [each["data-kinds"] for each in Page(render(pair, "sweep")).of("td") if "data-kinds" in each]
    assert cells == ["failed failed-1 disagree", "filmed", "failed failed-0 failed-1"] * 2


def test_where_the_numbers_come_from(evaluation):
    tags = {"lineage.dataset.sha256": "d" * 64}
    known = evaluation("st", 1, tags=tags, began_s=0.0, sweep_tags={COMMIT_TAG: "c" * 40, COMMAND_TAG: "eval <me>"})
    pending = evaluation("st", 2, run="{{run:" + "e" * 32 + "}}")
    html = render(compare([known, pending]), "sweep", Origin("today", "f" * 40, "eval now"))
    copied = [each["data-copy"] for each in Page(html).of("button") if "data-copy" in each]
    assert copied == [
        *(known.run, known.checkpoint, "d" * 64, "c" * 40),
        *(pending.run, pending.checkpoint, "f" * 40),
        *("eval <me>", "eval now"),
    ]
    assert "today" in html
    assert "1970-01-01" in html or "1969-12-31" in html


def test_a_film_that_ends_otherwise_is_called_so(evaluation):
    one = evaluation("ss", 1, videos=1)
    rows = (replace(one.rows[0], filmed_outcome="timeout", filmed_length=7), one.rows[1])
    assert "The film ends otherwise: timeout after 7 steps." in render(compare([replace(one, rows=rows)]), "sweep")


BODY_FITS = "return document.documentElement.scrollWidth <= innerWidth"
PLAYING = "return [...document.querySelectorAll('video[data-run]')].every(v => v.readyState >= 2 && v.currentTime > 0)"


@pytest.fixture
def browser():
    """Chromium without a window, 1600 pixels wide."""
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1600,1000"):
        options.add_argument(argument)
    opened = webdriver.Chrome(options=options)
    yield opened
    opened.quit()


def wait_for(browser, script):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, 90).until(lambda b: b.execute_script(script))


def looks_closer(browser):
    """Open the second film in the episode browser: its curves are drawn, and a click into one goes to that moment."""
    browser.execute_script("document.querySelectorAll('button.open')[1].click()")
    wait_for(browser, "return document.querySelectorAll('#viewer-actions canvas').length > 0")
    wait_for(browser, "return document.getElementById('viewer-video').readyState >= 2")
    names = browser.execute_script("return [...document.querySelectorAll('#viewer-actions figcaption')].length")
    assert names == 7
    browser.execute_script(
        "const at = document.getElementById('viewer-scrub'); at.value = 8; at.dispatchEvent(new Event('input'))"
    )
    wait_for(browser, "return document.getElementById('viewer-step').textContent.startsWith('step 8 of 16')")
    ink = """
        const canvas = document.querySelector('#viewer-actions canvas');
        const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
        return data.some(value => value > 0)"""
    assert wait_for(browser, ink)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_in_a_browser_the_printed_link_shows_the_comparison_and_plays(
    server, monkeypatch, small_checkpoints, scheme, browser, tmp_path
):
    """Behind the link that `eval` prints, with no click: the leaderboard in MLflow's sandbox, and moving videos; and
    the same page exported, from disk."""
    from click.testing import CliRunner
    from selenium.webdriver.support.ui import WebDriverWait
    from support import SHORT_EVALUATION

    from mlflow_project.cli import cli

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    words = ["eval", "--ckpt-root", str(small_checkpoints), "--output", "out", "--overrides", SHORT_EVALUATION]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    (link,) = (word for word in result.stdout.split() if word.startswith("http"))
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get(link)
    wait = WebDriverWait(browser, 90)
    frame = wait.until(lambda b: b.find_elements("css selector", "iframe.mlflow-html-iframe"))[0]
    browser.switch_to.frame(frame)
    rows = wait.until(lambda b: b.find_elements("css selector", "#leaderboard tbody tr"))
    assert [row.text.split()[:2] for row in rows] == [["1-3", f"step-{step}"] for step in (2, 4, 6)]
    background = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert background == {"light": "rgb(255, 255, 255)", "dark": "rgb(17, 23, 29)"}[scheme]
    browser.execute_script("document.getElementById('videos').scrollIntoView()")
    wait_for(browser, PLAYING)
    assert browser.execute_script(BODY_FITS)
    looks_closer(browser)
    runs = browser.execute_script("return [...document.querySelectorAll('#leaderboard a.run')].map(link => link.href)")
    browser.switch_to.default_content()

    if scheme == "dark":
        return  # once is enough
    exported = CliRunner().invoke(cli, ["compare", link, "--output", "out", "--export", "report"])
    assert exported.exit_code == 0, exported.output
    for width in (1600, 390):
        size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get((tmp_path / "report" / "index.html").as_uri())
        wait_for(browser, "return document.readyState === 'complete'")
        assert browser.execute_script(BODY_FITS)
        for number in range(2):
            browser.execute_script("document.querySelectorAll('.seed')[arguments[0]].scrollIntoView()", number)
            wait_for(browser, PLAYING.replace(".every", f".slice({3 * number}, {3 * number + 3}).every"))
        looks_closer(browser)
    browser.execute_script(
        "const f = document.getElementById('filter'); f.value = 'filmed'; f.dispatchEvent(new Event('change'))"
    )
    assert browser.execute_script("return document.getElementById('shown').textContent") == "2 seeds"
    for run in runs:
        browser.get(run)
        wait_for(browser, "return document.body.innerText.includes('step-')")
