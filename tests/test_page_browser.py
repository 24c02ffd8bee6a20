"""The page in a real browser: nothing leaves it, both views work, people's verdicts are saved, hostile text is text."""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from stages.compare import main as compare
from stages.lib.reviews import read_reviews, text_sha256
from stages.lib.rows import read_rows, write_json, write_rows
from stages.lib.rows.evaluated import Evaluated
from stages.lib.rows.filtered import Filtered, Rejected
from stages.lib.rows.preference import Preference
from stages.report import main as report
from tests.test_report import (
    ARMS,
    INPUTS,
    PAIRS,
    distilled,
    evaluated,
    score,
    write_csv,
    write_preferences,
    write_rows_and_counts,
    write_training,
)
from tests.workspace import ROOT, write_changed_params

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
RIGHT = {"base": range(3), "unfiltered": range(1, 20), "filtered": range(10, 30)}
ASTRAL = "𝟜" * 5  # each is two units where a browser counts one character of ours
HOSTILE = (
    '<script>document.title = "taken"</script></script><!-- <img src=x onerror="document.title=`taken`"> '
    "\u202eright to left\u202c zero\u200bwidth {{ 7 * 7 }} ${document.title}"
)
LARGE = f"{'a' * 1_000_000} {'{' * 1_000_000}"


def write_run(folder: Path) -> None:
    """A run with flips in both directions, hostile rows, a judge's preferences and all kinds of the teacher's rows."""
    write_rows_and_counts(folder, rejected=4)
    for name, right in RIGHT.items():
        write_arm(folder, name, set(right))
        write_training(folder, name, ["1.5", "0.5", "0.25"])
    write_teacher(folder)
    write_rows(folder / "data/preferences.jsonl", [preferred(index) for index in range(3)])
    write_preferences(folder, ["heldout"])
    write_changed_params(ROOT / "params.yaml", {"arms": ARMS, "compare.pairs": PAIRS}, folder / "params.yaml")
    inputs = ["--eval", folder / "metrics/eval", "--train", folder / "metrics/train"]
    inputs += [
        "--seeds",
        ROOT / "metrics/seeds.json",
        "--prefer",
        folder / "metrics/prefer.json",
        "--params",
        folder / "params.yaml",
    ]
    called(compare, *inputs, "--out", folder / "metrics/compare.json", "--table", folder / "metrics/compare.csv")
    write_page(folder, folder / "params.yaml")


def write_page(folder: Path, params: Path) -> None:
    inputs = [part for option, path in INPUTS.items() for part in (option, folder / path)]
    called(report, *inputs, "--out", folder / "report/index.html", "--params", params)


def called(command: Any, *arguments: object) -> None:
    done = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output + repr(done.exception)


def write_arm(folder: Path, name: str, right: set[int]) -> None:
    rows = [evaluated(index, index in right, "heldout", **said(name, index, index in right)) for index in range(40)]
    write_rows(folder / f"data/eval/{name}.jsonl", rows)
    lines = [("question_id", "benchmark", "cluster", "correct")]
    lines += [(row.id, row.benchmark, row.cluster, str(int(bool(row.correct)))) for row in rows]
    write_csv(folder / f"metrics/eval/{name}.scores.csv", lines)
    facts = {"heldout": score(len(right) / 40)}
    system: dict[str, Any] = {"system_prompt": None if name == "base" else "brief", "settings": {}}
    write_json(folder / f"metrics/eval/{name}.json", system | facts)


def said(name: str, index: int, right: bool) -> dict[str, Any]:
    """What an arm answers: a text whose words differ from the other arms', hostile on two questions."""
    answer = index - 1 if right else index + 5
    text = f"{ASTRAL}The {name} arm counts back by one.\n\nThe answer is {answer}."
    if index == 30:
        text = text.replace(".\n\n", r": \[ x = \frac{70}{2} \] for $5." + "\n\n")
        text = text.replace(str(answer), rf"\(\boxed{{{answer}}}\)")
    verdict = {"prediction": str(answer), "verdict": "right" if right else "wrong"}
    if index == 38:
        return {"question": HOSTILE, "response": HOSTILE, "prediction": HOSTILE, "verdict": "wrong"}
    return {"response": LARGE if index == 39 else text, "question": f"What is {index} − 1?"} | verdict


def write_teacher(folder: Path) -> None:
    """Four rejected answers, one of them Chinese, and eight kept ones, one of which is not the gold answer."""
    row: dict[str, Any] = {"decided_by": "rule:label", "rule_verdict": "right", "judge_verdict": None, "model": HOSTILE}
    rows = [Filtered(**distilled(i) | row, prediction=str(i + 1), verdict="right") for i in range(4, 12)]
    rows[0] = rows[0].model_copy(update={"rule_verdict": "wrong", "decided_by": "review", "prediction": "0"})
    write_rows(folder / "data/filtered.jsonl", rows)
    wrong = row | {"rule_verdict": "wrong", "verdict": "wrong", "prediction": "0", "reason": "wrong_answer"}
    texts = [{"question": "小明有几个苹果？"}, {"reasoning": HOSTILE}, {}, {}]
    write_rows(folder / "data/rejected.jsonl", [Rejected(**distilled(i) | wrong | texts[i]) for i in range(4)])


def preferred(index: int) -> Preference:
    verdict = {"verdict": "first", "verdict_swapped": "first", "outcome": "first"}
    arms = {"first": "filtered", "second": "base", "first_answer": "A long answer.", "second_answer": "A short one."}
    return Preference.model_validate({"id": f"p{index}", "question": "Write something."} | arms | verdict)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        assert os.environ.get("CI") != "true", "no Chromium. Run 'make browser' to install it."
        pytest.skip("no Chromium. Run 'make browser' to install it.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run(built_once: Callable[..., Path]) -> Path:
    return built_once("page in a browser", write_run)


@pytest.fixture
def opened(browser: Browser, run: Path) -> Iterator[Callable[..., Page]]:
    """``opened("#flips", locale="zh-CN")``: the page at a hash. At the end: no error, no request but the page's own."""
    contexts: list[BrowserContext] = []
    faults: list[str] = []

    def leaves(url: str, folder: Path) -> None:
        if not url.startswith((folder.as_uri(), "blob:")):
            faults.append(url)

    def load(at: str = "", path: Path = run / "report/index.html", **settings: Any) -> Page:
        context = browser.new_context(**{"locale": "en", "color_scheme": "light"} | settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda sent: leaves(sent.url, path.parent))
        page.goto(path.as_uri() + at)
        if settings.get("java_script_enabled", True):
            page.wait_for_selector("html[data-ready]")
        return page

    yield load
    for context in contexts:
        context.close()
    assert not faults


def ids(page: Page, listed: str) -> list[str]:
    return [element.get_attribute("data-id") or "" for element in page.locator(f"#{listed} > details").all()]


def test_a_cell_lists_exactly_the_questions_that_p_is_made_of(opened: Callable[..., Page], run: Path) -> None:
    compared = json.loads((run / "metrics/compare.json").read_text())
    page = opened("#flips")
    for first, second in PAIRS:
        page.select_option("#flips-a", first)
        page.select_option("#flips-b", second)
        a, b = set(RIGHT[first]), set(RIGHT[second])
        cells = {"both_right": a & b, "only_a": a - b, "only_b": b - a, "both_wrong": set(range(40)) - a - b}
        for name, expected in cells.items():
            page.click(f"button.{name}")
            assert ids(page, "flips-list") == [f"heldout-{index}" for index in sorted(expected)]
            assert page.locator(f"button.{name} b").inner_text() == str(len(expected))
        found = compared["pairs"][f"{first}_vs_{second}"]["benchmarks"]["heldout"]
        assert (found["only_first"], found["only_second"]) == (len(a - b), len(b - a))
        assert f"p rests on {len(a ^ b)} discordant questions" in page.locator("#flips-table").inner_text()
    page.click("#flips-swap")
    assert page.locator("button.only_b b").inner_text() == str(len(a - b))


def test_both_answers_stand_beside_each_other_with_what_differs_and_what_decides(opened: Callable[..., Page]) -> None:
    page = opened("#flips?a=filtered&b=unfiltered&benchmark=heldout&cell=only_a&open=heldout-25")
    sides = page.locator("details[open] .side")
    assert sides.count() == 2
    assert sides.locator("mark.decides").all_inner_texts() == ["24", "30"]
    differing = [side.locator("mark.differs").all_inner_texts() for side in sides.all()]
    assert differing == [["filtered", "24"], ["unfiltered", "30"]]
    assert "gold\n24" in page.locator("details[open]").inner_text()


def test_formulas_are_drawn_copied_as_written_and_shown_as_source(opened: Callable[..., Page]) -> None:
    page = opened("#rows?arm=filtered&open=student/filtered/heldout/heldout-30")
    answer = page.locator("#rows-list details[open] pre").last
    expect(answer.locator("math[display=block] mfrac > mn")).to_have_text(["70", "2"])
    expect(answer.locator("mark.decides math menclose")).to_have_text("35")
    assert "for $5." in answer.inner_text()
    assert "frac" not in answer.inner_text()
    copied = """(answer) => {
        getSelection().selectAllChildren(answer);
        const data = new DataTransfer();
        answer.dispatchEvent(new ClipboardEvent("copy", {clipboardData: data, bubbles: true}));
        return data.getData("text/plain");
    }"""
    assert r"counts back by one: \[ x = \frac{70}{2} \] for $5." in answer.evaluate(copied)
    page.get_by_role("button", name="LaTeX source").click()
    expect(answer).to_contain_text(r"\frac{70}{2}")
    expect(answer.locator("mark.decides")).to_have_text(r"\(\boxed{35}\)")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    expect(answer).to_contain_text(r"\frac{70}{2}")
    page.get_by_role("button", name="LaTeX source").click()
    expect(answer.locator("mark.decides math menclose")).to_have_text("35")
    assert page.locator("span.latex").count() == 0


def test_a_question_of_many_formulas_is_read(run: Path, opened: Callable[..., Page], tmp_path: Path) -> None:
    large = tmp_path / "run"
    shutil.copytree(run, large)
    rows = read_rows(large / "data/eval/base.jsonl", Evaluated, "")
    text = "$x$ " * 200_000
    write_rows(
        large / "data/eval/base.jsonl",
        [row.model_copy(update={"question": text, "response": text}) if row.id == "heldout-7" else row for row in rows],
    )
    write_page(large, large / "params.yaml")
    page = opened("#rows?arm=base&open=student/base/heldout/heldout-7", large / "report/index.html")
    assert page.locator("#rows-list details[open] pre").last.locator("math").count() == 2000


def test_a_number_is_rounded_as_in_the_tables_which_python_wrote(opened: Callable[..., Page]) -> None:
    page = opened("")
    source = (ROOT / "stages/lib/page/assets/words.js").read_text(encoding="utf-8")
    (function,) = re.findall(r"^function rounded.*?^}", source, re.MULTILINE | re.DOTALL)
    values = [6.25, 6.35, 6.75, 0.05, 0.15, 62.5, 12.25, 99.95, 0.0]
    found = page.evaluate(f"{json.dumps(values)}.map((value) => ({function})(value, 1))")
    assert found == [f"{value:.1f}" for value in values]


def test_words_regexes_chips_and_ranges_find_rows_and_count_them(opened: Callable[..., Page]) -> None:
    page = opened("#rows")
    expect(page.locator("#rows-found")).to_have_text("135 of 135 rows")
    page.fill("#search", "FILTERED counts")
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^76 "))  # unfiltered too
    page.fill("#search", '"the filtered arm"')
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^38 "))
    page.fill("#search", "/answer is (24|30)\\.$/")
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^4 "))
    page.click('[data-chip="arm:filtered"]')
    expect(page.locator("#rows-found")).to_have_text("1 of 135 rows")
    assert page.locator('[data-chip="arm:base"] .count').inner_text() == "2"
    page.fill("#search", "/(/")
    expect(page.locator("#search-error")).to_have_text(re.compile(r"^Not a regular"))
    page.click("#clear")
    page.click('[data-chip="kind:rejected"]')
    expect(page.locator("#rows-found")).to_have_text("4 of 135 rows")
    page.click("#clear")
    page.fill("#tokens-min", "100")
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^120 "))
    page.click("#clear")
    page.select_option("#sort", "id")
    page.click("#down")
    first = page.locator("#rows-list > details").first
    assert "train-11" in (first.get_attribute("data-key") or "")
    page.click('[data-chip="flag:differs_from_gold"]')
    expect(page.locator("#rows-found")).to_have_text("1 of 135 rows")
    assert page.locator("#rows-list").inner_text().count("kept, not the gold answer") >= 1
    page.click("#clear")
    page.click('[data-chip="kind:preference"]')
    page.locator("#rows-list summary").first.click()
    assert "filtered preferred" in page.locator("#rows-list").inner_text()


def test_a_regex_that_backtracks_without_end_is_ended_and_the_page_answers(opened: Callable[..., Page]) -> None:
    page = opened("#rows")
    page.fill("#search", "/(a+)+b/")
    expect(page.locator("#rows-list")).to_have_attribute("aria-busy", "true", timeout=30_000)
    page.click("#theme")  # while it searches
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.fill("#search", "the base arm")  # waits for a worker
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^38 "), timeout=30_000)
    page.fill("#search", "/(a+)+b/")
    expect(page.locator("#search-error")).to_have_text(re.compile(r"^A text took longer than 2 s"), timeout=30_000)
    page.fill("#search", "/base arm .*(the)+answer/is")
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^0 "), timeout=30_000)
    page.fill("#search", "/base arm .*(the )+answer/is")
    expect(page.locator("#rows-found")).to_have_text(re.compile(r"^38 "), timeout=30_000)
    assert page.locator("#search-error").inner_text() == ""


def test_each_view_and_each_sample_has_a_link(opened: Callable[..., Page]) -> None:
    page = opened("#rows?q=filtered&kind=student&sort=tokens")
    assert page.input_value("#search") == "filtered"
    page.locator("#rows-list > details").nth(3).locator("summary").first.click()
    page.locator("#rows-list details[open] .permalink").first.click()
    key = page.locator("#rows-list details[open]").first.get_attribute("data-key")
    again = opened(page.url[page.url.index("#") :])
    assert again.locator("#rows-list > details[open]").get_attribute("data-key") == key
    page.go_back()
    assert page.input_value("#search") == "filtered"
    pages = opened("#rows?page=3")
    assert pages.locator("#rows-list > details").count() == 35
    assert "Page 3 of 3" in pages.locator("#rows-pager").inner_text()


def test_keys_move_open_search_and_close(opened: Callable[..., Page]) -> None:
    page = opened("")
    page.keyboard.press("/")
    assert page.locator("#search").evaluate("it => it === document.activeElement")
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    assert page.locator("#rows-list > details").nth(1).get_attribute("open") is not None
    page.keyboard.press("Escape")
    assert page.locator("#rows-list > details[open]").count() == 0
    page.keyboard.press("?")
    assert page.locator("#keys").evaluate("it => it.open")
    page.keyboard.press("Escape")
    page.click("#views a[data-view=flips]")
    page.keyboard.press("4")
    assert page.locator("button.both_wrong").get_attribute("aria-pressed") == "true"
    page.keyboard.press("Escape")
    assert page.locator("#report-view").is_visible()


def test_verdicts_of_people_are_saved_and_the_filter_reads_them(
    opened: Callable[..., Page], run: Path, tmp_path: Path
) -> None:
    page = opened("#rows?kind=rejected")
    page.locator("#rows-list > details > summary").nth(1).focus()
    page.keyboard.press("3")
    page.keyboard.press("1")
    page.keyboard.press("Enter")
    comment = page.locator("#rows-list details[open] .reviewing input").first
    comment.fill("the gold answer 是错的 </script>")
    comment.blur()
    page.locator("#rows-list > details > summary").nth(2).focus()
    page.keyboard.press("2")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    page.click(".reviews > summary")
    other = {"id": "train-3#0", "verdict": "unsure", "when": "2026-01-01T00:00:00Z", "who": "li"}
    theirs = tmp_path / "theirs.jsonl"
    theirs.write_text(json.dumps(other) + "\n")
    page.set_input_files("#reviews-load", theirs)
    expect(page.locator("#status")).to_have_text(re.compile(r"^1 new review"))
    page.set_input_files("#reviews-load", theirs)
    expect(page.locator("#status")).to_have_text(re.compile(r"^0 new reviews"))
    with page.expect_download() as download:
        page.click("#reviews-save")
    download.value.save_as(tmp_path / "reviews.jsonl")
    lines = {line.id: line for _, line in read_reviews(tmp_path / "reviews.jsonl")}
    assert {key: line.verdict for key, line in lines.items()} == {
        "train-1#0": "right",
        "train-2#0": "wrong",
        "train-3#0": "unsure",
    }
    assert lines["train-1#0"].comment == "the gold answer 是错的 </script>"
    rows = [json.loads(line) for line in (run / "data/rejected.jsonl").read_text().splitlines()]
    assert lines["train-1#0"].text_sha256 == text_sha256(Rejected.model_validate(rows[1]))
    (tmp_path / "broken.jsonl").write_text('{"id": "train-1#0"}\n')
    page.set_input_files("#reviews-load", tmp_path / "broken.jsonl")
    expect(page.locator("#status")).to_have_text(re.compile(r"^broken.jsonl:1: not a review"))


# the words depend on the language alone and the colours on the theme alone: two of the four pages show all
@pytest.mark.parametrize(("locale", "scheme"), [("en", "light"), ("zh-CN", "dark")])
def test_both_languages_and_themes_have_no_violation_of_accessibility(
    locale: str, scheme: str, opened: Callable[..., Page]
) -> None:
    page = opened("", locale=locale, color_scheme=scheme)
    assert page.locator("html").get_attribute("lang") == {"en": "en", "zh-CN": "zh-Hans"}[locale]
    for view in ("report", "flips", "rows"):
        page.click(f"#views a[data-view={view}]")
        if view != "report":
            page.locator(f"#{view}-list > details > summary").first.click()
        found = Axe().run(page)
        assert not found.violations_count, f"{view}: {found.generate_report()}"


def test_the_switches_change_language_and_theme_and_stay(opened: Callable[..., Page]) -> None:
    page = opened("#rows")
    page.click("#language")
    page.click("#theme")
    assert page.locator("#rows-view h1").inner_text() == "全部回答"
    expect(page.locator("#rows-found")).to_contain_text("135 条")
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.locator("html").get_attribute("data-theme") == "dark"
    assert page.locator("#rows-view h1").inner_text() == "全部回答"


def test_hostile_text_is_text_in_every_view(opened: Callable[..., Page]) -> None:
    page = opened("#rows?q=zero")
    title = page.title()
    expect(page.locator("#rows-list")).to_have_attribute("aria-busy", "false")
    for summary in page.locator("#rows-list > details > summary").all():
        summary.click()
    assert '<img src=x onerror="document.title=`taken`">' in page.locator("#rows-list").inner_text()
    assert page.locator("#rows-list .hidden-character").first.inner_text().startswith("U+2")
    page.goto(page.url.split("#")[0] + "#flips?a=filtered&b=base&benchmark=heldout&cell=both_wrong")
    for index in (38, 39):
        page.locator(f'#flips-list > details[data-id="heldout-{index}"] > summary').click()
        expect(page.locator(f'#flips-list > details[data-id="heldout-{index}"] pre').last).to_be_visible()
    assert page.locator("#flips-list pre").last.inner_text().endswith("{" * 1000)
    assert page.locator("#explorer img, #explorer script, #report-view img").count() == 0
    assert page.title() == title
    for query in ("/x{2}y/", "{{{{", "\u202e", "<script>"):
        page.goto(page.url.split("#")[0] + "#rows")
        page.fill("#search", query)
        page.wait_for_timeout(120)
        assert page.locator("#rows-found").inner_text()


def test_rows_without_room_lie_beside_the_page_and_load(opened: Callable[..., Page], run: Path, tmp_path: Path) -> None:
    small = tmp_path / "run"
    shutil.copytree(run, small)
    write_changed_params(small / "params.yaml", {"report.max_mb": 0.01}, tmp_path / "params.yaml")
    write_page(small, tmp_path / "params.yaml")
    assert (small / "report/rows-1.js").is_file()
    page = opened("#flips?a=filtered&b=base&benchmark=heldout", small / "report/index.html")
    assert "rows-1.js" in page.locator("#status").inner_text()
    assert page.locator("button.only_a b").inner_text() == "20"  # discordant ones come first
    page.click("#siblings")
    expect(page.locator("#status")).to_have_text("")
    page.click("#views a[data-view=rows]")
    expect(page.locator("#rows-found")).to_have_text("135 of 135 rows")
    (small / "report/rows-1.js").unlink()


@pytest.mark.parametrize(
    ("locale", "remarks"),
    [
        ("en", ["To read and to search there is a random sample: 6 of 12", "this is a random sample: 6 of 12."]),
        ("zh-CN", ["（共 12 条）中抽取了 6 条", "共 12 条，这里是其中随机抽取的 6 条"]),
    ],
)
def test_a_sample_of_the_rows_is_called_one_beside_the_counts_and_above_the_search(
    locale: str, remarks: list[str], opened: Callable[..., Page], run: Path, tmp_path: Path
) -> None:
    sampled = tmp_path / "run"
    shutil.copytree(run, sampled)
    write_changed_params(sampled / "params.yaml", {"report.max_rows": 6}, tmp_path / "params.yaml")
    write_page(sampled, tmp_path / "params.yaml")
    page = opened("", sampled / "report/index.html", locale=locale)
    assert remarks[0] in page.locator("#flow > .note", has_text="12").inner_text()
    page.click("#views a[data-view=rows]")
    assert remarks[1] in page.locator("#rows-view > .note").inner_text()
    chips = page.locator('[data-chip="kind:kept"] .count, [data-chip="kind:rejected"] .count').all_inner_texts()
    assert sum(map(int, chips)) == 6
    page.fill("#search", "one more")
    page.wait_for_selector("#rows-found[data-took]", state="attached")
    assert 0 < page.locator("#rows-list > details").count() <= 6


def test_without_a_script_it_is_the_report(opened: Callable[..., Page]) -> None:
    page = opened("", java_script_enabled=False)
    assert page.locator("header h1").is_visible()
    assert page.locator("#comparison").is_visible()
    assert not page.locator("#bar").is_visible()
    assert not page.locator("#explorer").is_visible()
