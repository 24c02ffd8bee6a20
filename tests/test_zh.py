"""The Chinese pages are in step with the English ones: headings, commands, YAML, tables and links."""

import re
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[1]
PAGES = [("README.md", "README.zh-CN.md")] + [
    (f"docs/{path.name}", f"docs/zh/{path.name}") for path in sorted((ROOT / "docs" / "zh").glob("*.md"))
]
GENERATED = re.compile(r"<!-- comparison.*?<!-- /comparison -->", re.DOTALL)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def text(page: str) -> str:
    return GENERATED.sub("", (ROOT / page).read_text(encoding="utf-8"))


def headings(page: str) -> list[int]:
    """The levels of the headings, in order."""
    return [len(marks) for marks in re.findall(r"^(#+) ", BLOCK.sub("", text(page)), re.MULTILINE)]


def commands(page: str) -> list[str]:
    """The lines of the shell blocks without their comments."""
    lines = [line for kind, block in BLOCK.findall(text(page)) if kind == "sh" for line in block.splitlines()]
    bare = [re.sub(r"(^|\s+)#.*", "", line).rstrip() for line in lines]
    return [line for line in bare if line]


def yaml_blocks(page: str) -> list[object]:
    return [YAML(typ="safe").load(StringIO(block)) for kind, block in BLOCK.findall(text(page)) if kind == "yaml"]


def tables(page: str) -> Iterator[list[tuple[int, list[str]]]]:
    """Each table as its rows: the number of cells, the numbers in them, and the names in code, each once."""
    for table in re.findall(r"(?:^\|.*\n)+", text(page), re.MULTILINE):
        rows = [row.strip().strip("|").split(" | ") for row in table.splitlines()]
        yield [(len(row), contents(" ".join(row))) for row in rows]


def contents(row: str) -> list[str]:
    code = "`[^`]+`"
    return [*sorted(set(re.findall(code, row))), *sorted(re.findall(r"\d[\d,.]*\d|\d", re.sub(code, "", row)))]


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_a_chinese_page_has_the_headings_of_the_english_one(english: str, chinese: str) -> None:
    assert headings(chinese) == headings(english)


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_a_chinese_page_has_the_commands_and_the_params_of_the_english_one(english: str, chinese: str) -> None:
    assert commands(chinese) == commands(english)
    assert yaml_blocks(chinese) == yaml_blocks(english)


@pytest.mark.parametrize(("english", "chinese"), PAGES)
def test_a_chinese_page_has_the_rows_and_the_numbers_of_the_english_tables(english: str, chinese: str) -> None:
    assert list(tables(chinese)) == list(tables(english))


@pytest.mark.parametrize("page", [page for pair in PAGES for page in pair])
def test_each_link_of_a_page_leads_to_a_file(page: str) -> None:
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text(page)):
        assert "://" in link or (ROOT / page).parent.joinpath(link).exists(), f"{page}: {link}"


def test_what_is_in_one_page_alone_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    (tmp_path / "en.md").write_text("# A\n## B\n```sh\nmake x  # why\n```\n| a | 5 |\n|---|---|\n| `k` | 1,000 |\n")
    (tmp_path / "zh.md").write_text("# 甲\n```sh\nmake x  # 为何\n```\n| 甲 | 5 |\n|---|---|\n| `k` | 1,001 |\n")
    assert headings("zh.md") != headings("en.md")
    assert commands("zh.md") == commands("en.md") == ["make x"]
    assert list(tables("zh.md")) != list(tables("en.md"))
