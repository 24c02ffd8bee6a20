"""docs/teacher.md leaves nothing out: every fault, every key of ``distill.teacher``, every key of ``run:`` for it."""

import re
from pathlib import Path
from typing import get_args

from stages.lib.params import EmbeddedTeacher, Fault, Run, ServedTeacher
from stages.lib.teacher.backends.embedded.faults import PERMANENT, TRANSIENT

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "teacher.md").read_text(encoding="utf-8")
OF_OTHER_STAGES = {
    "threads",
    "device",
    "processes",
    "served",
    "checkpoint_steps",
    "resume",
    "launcher",
    "report_to",
    "shard_rows",
}


def test_every_fault_stands_in_the_table_with_whether_it_passes() -> None:
    listed = re.findall(r"^\| `(\w+)` \| .+ \| (passes|stays) \|$", PAGE, re.MULTILINE)
    assert [fault for fault, _ in listed] == list(get_args(Fault))
    assert {fault for fault, what in listed if what == "passes"} == set(TRANSIENT)
    assert {fault for fault, what in listed if what == "stays"} == set(PERMANENT)


def test_every_key_of_run_that_concerns_the_teacher_is_explained() -> None:
    named = set(re.findall(r"`run\.(\w+)", PAGE))
    assert named == set(Run.model_fields) - OF_OTHER_STAGES


def test_every_key_of_the_teacher_is_named() -> None:
    for key in (ServedTeacher.model_fields.keys() | EmbeddedTeacher.model_fields.keys()) - {"seed"}:
        assert re.search(rf"\b{key}\b", PAGE), key


def test_every_file_that_is_linked_is_there() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file(), link


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", PAGE, re.MULTILINE))
    assert {"retry", "forecast", "store", "store-article"} <= targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
