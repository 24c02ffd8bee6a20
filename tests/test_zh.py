"""The Chinese pages say what the English ones say: the same headings, commands, settings and tables, and live links."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PAIRS = {
    "README.md": "README.zh-CN.md",
    **{f"docs/{page.name}": f"docs/zh/{page.name}" for page in sorted((ROOT / "docs" / "zh").glob("*.md"))},
}
pairs = pytest.mark.parametrize(("english", "chinese"), PAIRS.items())
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Outline(NamedTuple):
    """What two pages have in common if one is the other in another language."""

    headings: list[int]  # the level of each
    commands: list[str]
    settings: list[Any]  # what each YAML block holds
    tables: list[list[tuple[int, list[str]]]]  # of each row the number of cells, and the numbers in them


def outline(text: str) -> Outline:
    blocks, prose = FENCED.findall(text), FENCED.sub("", text)
    return Outline(
        headings=[len(marks) for marks in re.findall(r"^(#+) ", prose, re.MULTILINE)],
        commands=[line for kind, block in blocks if kind == "sh" for line in commands(block)],
        settings=[YAML(typ="safe").load(block) for kind, block in blocks if kind == "yaml"],
        tables=[[row(line) for line in table.splitlines()] for table in re.findall(r"(?:^\|.*\n)+", prose, re.M)],
    )


def commands(block: str) -> Iterator[str]:
    for line in block.splitlines():
        if command := re.sub(r"(^|\s)\s*#.*", "", line).rstrip():
            yield command


def row(line: str) -> tuple[int, list[str]]:
    """Numbers in any order, because the words around them have another order in Chinese."""
    return len(re.findall(r"(?<!\\)\|", line)) - 1, sorted(re.findall(r"[0-9]+(?:[.,][0-9]+)*", line))


def anchors(text: str) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", FENCED.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def links(text: str) -> list[str]:
    found = re.findall(r"\]\(([^)\s]+)\)", FENCED.sub("", text))
    return [link for link in found if not re.match(r"[a-z]+:", link)]


@pairs
@pytest.mark.parametrize("part", Outline._fields)
def test_the_two_pages_have_the_same(part: str, english: str, chinese: str) -> None:
    there, here = (getattr(outline((ROOT / name).read_text(encoding="utf-8")), part) for name in (english, chinese))
    assert here == there


@pairs
def test_each_page_links_the_other_before_its_first_section(english: str, chinese: str) -> None:
    for name, other in ((english, chinese), (chinese, english)):
        head = (ROOT / name).read_text(encoding="utf-8").split("\n## ")[0]
        assert (ROOT / other).resolve() in {((ROOT / name).parent / link).resolve() for link in links(head)}


@pytest.mark.parametrize("name", [name for pair in PAIRS.items() for name in pair])
def test_every_relative_link_and_its_anchor_are_there(name: str) -> None:
    for link in links((ROOT / name).read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target.read_text(encoding="utf-8")), link


def test_the_chinese_index_links_the_chinese_page_where_there_is_one() -> None:
    index, folder = ROOT / "docs" / "zh" / "index.md", ROOT / "docs" / "zh"
    linked = {(folder / link).resolve() for link in links(index.read_text(encoding="utf-8"))}
    for page in sorted((ROOT / "docs").glob("*.md")):
        chinese = folder / page.name
        assert page.name == "index.md" or (chinese if chinese.is_file() else page) in linked, page.name


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("headings", lambda text: text + "\n## More\n"),
        ("headings", lambda text: text.replace("\n## ", "\n### ", 1)),
        ("headings", lambda text: re.sub(r"\n## .*", "", text, count=1)),
        ("commands", lambda text: text + "\n```sh\nmake more    # 更多\n```\n"),
        ("commands", lambda text: text.replace("\nmake repro", "\nmake again", 1)),
        ("commands", lambda text: re.sub(r"\nmake .*", "", text, count=1)),
        ("settings", lambda text: text + "\n```yaml\nrun: {offline: true}\n```\n"),
        ("settings", lambda text: re.sub(r"(```yaml\n\w+:\n  )", r"\1more: 1\n  ", text, count=1)),
        ("tables", lambda text: re.sub(r"(\n\|---.*\n)(.*\n)", r"\1\2\2", text, count=1)),
        ("tables", lambda text: re.sub(r"(\n\|---.*\n).*\n", r"\1", text, count=1)),
        ("tables", lambda text: re.sub(r"(\n\|---.*\n.*)", r"\1 more |", text, count=1)),
        ("tables", lambda text: re.sub(r"(\n\|---.*\n.*)(?=\|\n)", r"\1 7.5 ", text, count=1)),
        ("tables", lambda text: text + "\n| a |\n|---|\n| b |\n"),
    ],
)
def test_a_change_to_one_page_alone_is_seen(part: str, change: Callable[[str], str]) -> None:
    text = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
    before, after = outline(text), outline(change(text))
    assert {name for name in Outline._fields if getattr(before, name) != getattr(after, name)} == {part}


def test_comments_and_words_may_differ() -> None:
    text = (
        "# {0}\n\n```sh\n# {0}\nmake demo    # {0}\n```\n\n```yaml\nrun: {{offline: true}}    # {0}\n```\n\n"
        "| {0} | n |\n|---|---|\n| 3 {0} 4 | `a` |\n"
    )
    assert outline(text.format("one")) == outline(text.format("一"))
    assert outline(text.format("one")).commands == ["make demo"]
