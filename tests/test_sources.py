"""collect.source: the same questions from every format and hub; what is wrong with a row; the presets."""

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result

from stages.collect import main
from stages.lib.params import FileSource
from stages.lib.params.presets import preset_named, preset_names
from stages.lib.rows import DataError
from stages.lib.sources.file import draw
from stages.lib.tables.columns import fits, value_at
from stages.lib.tables.gold import READERS
from tests.test_collect import OUTPUTS, arguments, rows, texts

ROWS = [
    {"q": "Ann has 3 hens, Bob 4. How many?", "a": "7", "level": "1"},
    {"q": 'It says "two, or\nthree". Which?', "a": "3", "level": "2"},
    {"q": "鸡兔同笼，共 8 头 22 足，兔有几只？", "a": "3", "level": "2"},
    {"q": "What is half of 5?", "a": "2.5", "level": "1"},
]
COLUMNS = {"question": "q", "answer": "a", "solution": None, "id": None}


def table(path: object, train: int = 3, heldout: int = 1, **changes: object) -> dict[str, object]:
    """The changes to params.yaml that take questions from a file."""
    source = {"kind": "file", "path": str(path), "columns": COLUMNS, "gold": "plain", "where": {}, "shuffle_seed": None}
    return {"collect.source": source | changes, "collect.train_size": train, "collect.heldout_size": heldout}


def write_csv(path: Path, delimiter: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", newline="", encoding=encoding) as file:
        writer = csv.DictWriter(file, list(ROWS[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def write_jsonl(path: Path, content: list[dict[str, Any]] = ROWS) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")


WRITERS: dict[str, Callable[[Path], object]] = {
    "q.jsonl": write_jsonl,
    "q.ndjson": write_jsonl,
    "q.json": lambda path: path.write_text(json.dumps(ROWS)),
    "wrapped.json": lambda path: path.write_text(json.dumps({"version": "1.1", "data": ROWS})),
    "q.csv": write_csv,
    "excel.csv": lambda path: write_csv(path, encoding="utf-8-sig"),
    "q.tsv": lambda path: write_csv(path, delimiter="\t"),
    "q.parquet": lambda path: pq.write_table(pa.Table.from_pylist(ROWS), path),
    "q.jsonl.gz": lambda path: path.write_bytes(gzip.compress("\n".join(map(json.dumps, ROWS)).encode())),
}


@pytest.fixture
def collect(
    tmp_path: Path, project_params: Callable[..., Path], runs: Callable[..., Result]
) -> Callable[[dict[str, object]], Path]:
    """Runs collect with changed params; the folder of its outputs."""

    def run(changes: dict[str, object], name: str = "out") -> Path:
        runs(main, *arguments(tmp_path / name, project_params(changes)))
        return tmp_path / name

    return run


@pytest.fixture
def complaint(
    tmp_path: Path, project_params: Callable[..., Path], refuses: Callable[..., str]
) -> Callable[[dict[str, object]], str]:
    """Runs collect with changed params, which it refuses in one line; writes nothing."""

    def run(changes: dict[str, object]) -> str:
        line = refuses(main, *arguments(tmp_path / "refused", project_params(changes)))
        assert not (tmp_path / "refused").exists()
        return line

    return run


class TestFiles:
    """Formats, globs and URLs."""

    @pytest.mark.parametrize("name", WRITERS)
    def test_every_format_gives_the_same_questions(
        self, name: str, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        WRITERS[name](tmp_path / name)
        out = collect(table(tmp_path / name))
        assert [(row["question"], row["answer"]) for row in rows(out / "questions")] == [
            (row["q"], row["a"]) for row in ROWS[:3]
        ]
        assert texts(out / "heldout") == ["What is half of 5?"]
        stem = name.partition(".")[0]
        assert [row["id"] for row in rows(out / "questions")] == [f"{stem}-rows-{number}" for number in range(3)]

    def test_a_glob_reads_its_files_in_the_order_of_their_names(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        write_jsonl(tmp_path / "part-2.jsonl", ROWS[2:])
        write_jsonl(tmp_path / "part-1.jsonl", ROWS[:2])
        (tmp_path / "notes.txt").write_text("no rows")
        out = collect(table(tmp_path / "part-*.jsonl"))
        assert texts(out / "questions") == [row["q"] for row in ROWS[:3]]

    def test_a_file_that_excel_saved_in_gb18030_is_named_with_the_command_that_converts_it(
        self, tmp_path: Path, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        write_csv(tmp_path / "q.csv", encoding="gb18030")
        assert "not UTF-8" in (line := complaint(table(tmp_path / "q.csv"))) and "iconv -f GB18030" in line

    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("q.csv", 'q,a\n"one",1\ntwo,2,3\n', "q.csv:3: 3 fields, and the header has 2. Quote a field that holds"),
            ("q.csv", 'q,a\n"one,1\n', "q.csv:2: not CSV (unexpected end of data)"),
            ("q.csv", "", "q.csv: empty. Its first line names the columns."),
            ("q.csv", "q;a;level\none;1;1\n", "q.csv:1: columns are separated by ';'. Save it with commas"),
            ("q.jsonl", '{"q": "one"', "q.jsonl:1: not JSON ("),
            ("q.jsonl", '["one"]', "q.jsonl:1: not an object but \"['one']\""),
            ("q.json", '{"a": [], "b": []}', "q.json: neither a list of rows nor an object with one."),
            ("q.parquet", "PAR1", "q.parquet: not a whole Parquet file ("),
            (
                "q.xlsx",
                "PK",
                "the format .xlsx is not read. Known: .jsonl, .ndjson, .txt (JSONL), .json, ",
            ),
            ("questions", "q", "the format without a suffix is not read."),
        ],
    )
    def test_a_file_that_cannot_be_read_is_named_with_its_place(
        self, name: str, content: str, expected: str, tmp_path: Path, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        (tmp_path / name).write_text(content)
        assert expected in complaint(table(tmp_path / name))

    @pytest.mark.parametrize("path", ["data/own/absent.csv", "data/own/absent-*.csv"])
    def test_an_absent_file_is_named(self, path: str, complaint: Callable[[dict[str, object]], str]) -> None:
        assert complaint(table(path)).startswith(f"collect.source.path: {path}: no such file.")

    def test_a_scheme_that_is_not_known_is_named(self, complaint: Callable[[dict[str, object]], str]) -> None:
        assert "Protocol not known: cos" in complaint(table("cos://bucket/q.csv"))

    def test_a_bucket_is_read(
        self, s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        write_csv(tmp_path / "q.csv")
        content = (tmp_path / "q.csv").read_bytes()
        put = Request(f"{s3}/own/sets/q.csv", content, {"Content-Type": "text/csv"}, method="PUT")
        build_opener(ProxyHandler({})).open(Request(f"{s3}/own", method="PUT")).close()
        build_opener(ProxyHandler({})).open(put).close()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_ENDPOINT_URL": s3, "NO_PROXY": "127.0.0.1"}
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        assert texts(collect(table("s3://own/sets/*.csv")) / "questions") == [row["q"] for row in ROWS[:3]]


class TestRows:
    """Which rows are taken, and what is said of the others."""

    def test_what_a_column_holds_wrongly_is_counted_and_named_by_row_number(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path], caplog: pytest.LogCaptureFixture
    ) -> None:
        wrong: list[dict[str, Any]] = [
            {"a": None},
            {"a": ""},
            {"q": None},
            {"q": ["a", "list"]},
            {"a": ["7"]},
            {"q": "   "},
        ]
        content: list[dict[str, Any]] = [{"q": f"Question {number}?", "a": str(number)} for number in range(200)]
        for number, changes in zip((5, 17, 20, 41, 60, 99), wrong, strict=True):
            content[number] |= changes
        write_jsonl(tmp_path / "q.jsonl", content)
        out = collect(table(tmp_path / "q.jsonl", train=150, heldout=20))
        assert json.loads((out / "metrics").read_text())["source"] == {
            "rows": 200,
            "not_where": 0,
            "usable": 194,
            "unusable": {
                "answer_not_text": {"count": 1, "rows": [60]},
                "no_answer": {"count": 2, "rows": [5, 17]},
                "no_question": {"count": 2, "rows": [20, 99]},
                "question_not_text": {"count": 1, "rows": [41]},
            },
        }
        assert f"2 of 200 rows left out: no_answer ({tmp_path}/q.jsonl:6, {tmp_path}/q.jsonl:18)" in caplog.text
        assert rows(out / "questions")[5]["id"] == "q-rows-6"

    def test_where_keeps_the_rows_whose_columns_hold_a_value(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        write_csv(tmp_path / "q.csv")
        out = collect(table(tmp_path / "q.csv", 1, 1, where={"level": 2}))
        assert texts(out / "questions") == [ROWS[1]["q"]] and texts(out / "heldout") == [ROWS[2]["q"]]
        assert json.loads((out / "metrics").read_text())["source"]["not_where"] == 2

    def test_a_seed_shuffles_and_the_same_seed_shuffles_alike(
        self, tmp_path: Path, collect: Callable[..., Path]
    ) -> None:
        write_jsonl(tmp_path / "q.jsonl", [{"q": f"Question {number}?", "a": "1"} for number in range(100)])
        params = table(tmp_path / "q.jsonl", 30, 10, shuffle_seed=7)
        first, second = collect(params, "first"), collect(params, "second")
        for name in OUTPUTS:
            assert (first / name).read_bytes() == (second / name).read_bytes()
        assert texts(first / "questions") != sorted(texts(first / "questions"))
        assert not set(texts(first / "questions")) & set(texts(first / "heldout"))

    def test_columns_are_read_by_paths_and_ids_by_a_column(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        nested = [
            {"uid": number, "messages": [{"role": "user", "content": f"Q{number}?"}], "meta": {"gold": number}}
            for number in range(4)
        ]
        write_jsonl(tmp_path / "q.jsonl", nested)
        columns = {"question": "messages.0.content", "answer": "meta.gold", "solution": None, "id": "uid"}
        out = collect(table(tmp_path / "q.jsonl", columns=columns))
        assert [(row["id"], row["question"], row["answer"]) for row in rows(out / "questions")] == [
            ("0", "Q0?", "0"),
            ("1", "Q1?", "1"),
            ("2", "Q2?", "2"),
        ]

    def test_an_id_that_two_rows_have_is_named(
        self, tmp_path: Path, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        write_jsonl(tmp_path / "q.jsonl", [row | {"id": "same"} for row in ROWS])
        line = complaint(table(tmp_path / "q.jsonl", columns=COLUMNS | {"id": "id"}))
        assert line == (f"{tmp_path}/q.jsonl:2: the id 'same' is that of {tmp_path}/q.jsonl:1 too. Remove columns.id.")

    def test_a_column_that_no_row_has_is_named_with_those_that_they_have(
        self, tmp_path: Path, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        write_csv(tmp_path / "q.csv")
        line = complaint(table(tmp_path / "q.csv", columns=COLUMNS | {"question": "problem"}))
        assert line == (
            "collect: q has no column 'problem' in 4 rows. Its columns: 'q', 'a', 'level'. "
            "Name them in columns and where of collect.source."
        )

    def test_too_few_questions_are_said_with_their_number(
        self, tmp_path: Path, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        write_csv(tmp_path / "q.csv")
        assert complaint(table(tmp_path / "q.csv", 4, 1)) == (
            "collect: 5 questions are asked for, and q has 4 in 4 rows. "
            "Lower collect.train_size or collect.heldout_size."
        )

    def test_held_out_questions_come_from_another_source_where_one_is_named(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path], complaint: Callable[..., str]
    ) -> None:
        for folder, content in (("train", ROWS[:3]), ("test", [ROWS[3], ROWS[0]])):
            (tmp_path / folder).mkdir()
            write_jsonl(tmp_path / folder / "q.jsonl", content)
        params = table(tmp_path / "train" / "q.jsonl", 3, 2)
        other = table(tmp_path / "test" / "q.jsonl")["collect.source"]
        out = collect(params | {"collect.heldout_source": other})
        assert texts(out / "heldout") == [ROWS[3]["q"], ROWS[0]["q"]]
        assert texts(out / "questions") == [row["q"] for row in ROWS[1:3]], "the one in both sets is held out"
        assert json.loads((out / "metrics").read_text())["source"]["heldout"]["rows"] == 2
        absent = table(tmp_path / "absent.jsonl")["collect.source"]
        line = complaint(params | {"collect.heldout_source": absent})
        assert line.startswith(f"collect.heldout_source.path: {tmp_path}/absent.jsonl: no such file.")


@pytest.mark.parametrize(
    ("reader", "text", "expected"),
    [
        ("plain", " 72\n", "72"),
        ("after_hashes", "48 / 2 = 24\n#### 1,080", "1080"),
        ("after_hashes", "no mark", None),
        ("after_hashes", "####", None),
        ("boxed", r"so $\boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        ("boxed", r"first \boxed{1}, then \fbox{x}, then \boxed {\{1, 2\}}", r"\{1, 2\}"),
        ("boxed", r"\boxed{\text{(A) }\left\{\frac{a}{b}\right\}}", r"\text{(A) }\left\{\frac{a}{b}\right\}"),
        ("boxed", r"cut off \boxed{1", None),
        ("boxed", "none", None),
    ],
)
def test_the_gold_answer_is_read_in_the_forms_of_public_sets(reader: str, text: str, expected: str | None) -> None:
    assert READERS[reader](text) == expected


def test_a_path_into_a_column_and_a_column_of_that_very_name() -> None:
    assert value_at({"a.b": 1, "a": {"b": 2}}, "a.b") == 1
    assert value_at({"a": [{"b": 2}]}, "a.0.b") == 2
    assert value_at({"a": [{"b": 2}]}, "a.1.b") is None
    assert fits({"level": "5", "ok": True}, {"level": [4, 5], "ok": "true"})
    assert not fits({"level": None}, {"level": "5"})


@pytest.mark.parametrize("seed", [None, 1])
@pytest.mark.parametrize("later", [ROWS[:2], [row | {"q": None} for row in ROWS]])
def test_a_table_that_shrinks_or_loses_a_question_while_it_is_read_is_one_line(
    later: list[dict[str, Any]], seed: int | None, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "own.jsonl")
    source = table(tmp_path / "own.jsonl", shuffle_seed=seed)["collect.source"]
    drawn = draw(FileSource.model_validate(source), 3, 1, "collect.source")
    assert (len(list(drawn.candidates)), len(list(drawn.heldout))) == (3, 1)
    write_jsonl(tmp_path / "own.jsonl", later)
    with pytest.raises(DataError, match=r"^collect: own: changed while it was read\. Run the stage again\.$"):
        list(drawn.candidates)


class TestHubs:
    """Folders in a hub's layout: its client reads them as it does a download."""

    def test_a_folder_in_the_hubs_layout_is_read_by_split(
        self, tmp_path: Path, collect: Callable[[dict[str, object]], Path]
    ) -> None:
        (tmp_path / "set" / "data").mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "set" / "data" / "train-00000-of-00001.parquet")
        pq.write_table(pa.Table.from_pylist(ROWS[:1]), tmp_path / "set" / "data" / "test-00000-of-00001.parquet")
        place: dict[str, Any] = {"kind": "hub", "subset": None, "split": "train", "revision": None}
        out = collect(table(tmp_path / "set", **place))
        assert [row["id"] for row in rows(out / "questions")] == ["set-train-0", "set-train-1", "set-train-2"]
        assert rows(out / "questions")[0]["source"] == "set/train"

    @pytest.mark.parametrize("kind", ["hub", "modelscope"])
    def test_what_cannot_be_fetched_is_one_line(
        self, kind: str, complaint: Callable[[dict[str, object]], str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place: dict[str, Any] = {"kind": kind, "subset": None, "split": "train", "revision": None}
        line = complaint(table("./absent/folder", **place))
        assert line.startswith("collect.source.path: ./absent/folder: no such folder.")


class TestPresets:
    """stages/presets: public sets, described and not programmed."""

    @pytest.mark.parametrize("name", preset_names())
    def test_each_says_where_it_is_published(self, name: str) -> None:
        preset = preset_named(name, "collect.source")
        assert re.fullmatch(r"[\w-]+/[\w.-]+", preset.hub or preset.modelscope or "")

    def test_a_row_in_the_form_of_each_set_becomes_a_question(
        self, tmp_path: Path, collect: Callable[..., Path]
    ) -> None:
        published: dict[str, dict[str, Any]] = {
            "gsm8k": {"question": "How many?", "answer": "6 * 12\n#### 72"},
            "gsm8k_zh": {
                "question": "How many?",
                "question_zh": "多少？",
                "answer": "6 * 12\n#### 72",
                "answer_zh": "6 * 12 = 72。",
                "answer_only": "72",
                "split": "train",
            },
            "math": {"problem": "How many?", "level": "Level 1", "type": "Algebra", "solution": r"$\boxed{72}$"},
            "deepscaler": {"problem": "How many?", "answer": "72", "solution": "6 * 12"},
            "openr1_math": {"problem": "How many?", "solution": "6 * 12", "answer": "72", "generations": ["<think>"]},
            "numinamath": {"source": "amc_aime", "problem": "How many?", "solution": r"\boxed{72}", "messages": []},
        }
        assert sorted(published) == preset_names()
        for name, row in published.items():
            write_jsonl(tmp_path / f"{name}.jsonl", [row])
            source: dict[str, Any] = {
                "kind": "preset",
                "name": name,
                "origin": "file",
                "path": str(tmp_path / f"{name}.jsonl"),
            }
            source |= {"split": "train", "where": {}, "shuffle_seed": None}
            out = collect({"collect.source": source, "collect.train_size": 1, "collect.heldout_size": 0}, name)
            (question,) = rows(out / "questions")
            assert question["answer"] == "72" and question["solution"], name
            assert question["id"] == f"{name}-train-0"

    def test_one_that_is_not_there_is_named_with_the_nearest(
        self, complaint: Callable[[dict[str, object]], str]
    ) -> None:
        source: dict[str, Any] = {
            "kind": "preset",
            "name": "gsm8",
            "origin": "hub",
            "path": None,
            "split": "train",
            "where": {},
        }
        line = complaint({"collect.source": source | {"shuffle_seed": None}})
        assert "collect.source.name: no preset 'gsm8'. Did you mean 'gsm8k'?" in line

    def test_one_without_an_id_at_an_origin_needs_a_path(self, complaint: Callable[[dict[str, object]], str]) -> None:
        source: dict[str, Any] = {
            "kind": "preset",
            "name": "numinamath",
            "origin": "modelscope",
            "path": None,
            "split": "train",
        }
        line = complaint({"collect.source": source | {"where": {}, "shuffle_seed": None}})
        assert "collect.source.path: null, and preset numinamath names no modelscope of its own. Write a path." in line
