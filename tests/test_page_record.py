"""The record of a run: it stands in a copy of the page, from dvc.lock, git and the metrics, and its texts are text."""

import subprocess
from hashlib import md5
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from stages.lib.cards.run import PRIVATE
from stages.lib.record.__main__ import FROM, TO, with_record
from stages.lib.record.facts import Cost, Output, Prompt, Record, read_record
from stages.lib.rows import write_json
from stages.lib.why.reasons import Reason, reasons
from tests.workspace import ROOT, write_changed_params

HOSTILE = f'</pre><script>alert("7")</script> {{{{ 7 * 7 }}}} {TO}'
PAGE = f"<main>{FROM}<p>none</p>{TO}</main>"


def record(**changes: object) -> Record:
    known: dict[str, object] = {
        "commit": "1f4a9e0" * 5,
        "changed": [],
        "again": {"train@filtered": [Reason("key", {"key": "train.seed", "old": "3", "new": "4"})]},
        "costs": [Cost("distill", 3, 180, 1.25, 75.0, "CNY", 12.4, "")],
        "params": "train: {seed: 4}\n",
        "prompts": [Prompt("stages/prompts/brief.txt", ["convert@filtered"], "Be brief.", False)],
        "versions": {"torch": ["2.13.0"]},
        "outputs": [Output("train@filtered", "models/filtered", "abc.dir", 1234567)],
    }
    return Record(**known | changes)  # type: ignore[arg-type]


def test_the_record_takes_its_place_in_the_page() -> None:
    html = with_record(PAGE, record()) or ""
    for shown in (
        "1.25 CNY",
        "75.00 CNY",
        "train.seed: 3 → 4",
        "1,234,567",
        "torch",
        "Be brief.",
        "git checkout 1f4a9e0",
    ):
        assert shown in html
    assert "<p>none</p>" not in html
    assert html.startswith(f"<main>{FROM}")
    assert html.endswith(f"{TO}</main>")


def test_without_prices_no_amount_is_claimed() -> None:
    html = with_record(PAGE, record(costs=[Cost("distill", 3, 180, 0.0, 0.0, "", 1.0, "cpu")])) or ""
    assert "0.00" not in html


def test_hostile_text_of_params_and_prompts_is_text() -> None:
    prompts = [Prompt(HOSTILE, [HOSTILE], HOSTILE, True)]
    again = {HOSTILE: [Reason("missing", {"path": HOSTILE})]}
    hostile = record(params=HOSTILE, prompts=prompts, again=again, changed=[HOSTILE])
    html = with_record(PAGE, hostile) or ""
    assert "<script" not in html
    assert html.count(TO) == 1


def test_a_page_without_a_place_for_it_is_refused() -> None:
    assert with_record("<main></main>", record()) is None


def test_the_record_is_read_from_lock_params_and_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = "stages/prompts/brief.txt"
    (tmp_path / prompt).parent.mkdir(parents=True)
    (tmp_path / prompt).write_text("Be brief.")
    write_changed_params(ROOT / "params.yaml", {}, tmp_path / "params.yaml")
    sums = {"path": prompt, "md5": md5(b"Be brief.", usedforsecurity=False).hexdigest()}
    model = {"path": "models/filtered", "md5": "abc.dir", "size": 7}
    stages = {"train@filtered": {"cmd": "train", "deps": [sums], "outs": [model]}}
    YAML().dump({"schema": "2.0", "stages": stages}, tmp_path / "dvc.lock")
    write_json(
        tmp_path / "metrics/runs/distill.json", {"bought": 2, "from_store": 5, "paid_now": 0.5, "currency": "CNY"}
    )
    write_json(tmp_path / "metrics/eval/filtered.json", {"settings": {"versions": {"torch": "2.13.0"}}})
    for command in ("git init -q .", "dvc init -q", "git add dvc.lock"):
        subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.chdir(tmp_path)
    found = read_record(Path())
    assert found.commit is None
    assert found.prompts == [Prompt(prompt, ["train@filtered"], "Be brief.", True)]
    assert found.outputs == [Output("train@filtered", "models/filtered", "abc.dir", 7)]
    assert [(cost.step, cost.bought, cost.paid, cost.saved) for cost in found.costs] == [("distill", 2, 0.5, None)]
    assert found.versions == {"torch": ["2.13.0"]}
    assert "train:" in found.params
    assert "\nrun:" not in found.params


def test_the_address_of_a_server_is_not_in_the_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    old, new = ({"teacher": {"base_url": f"http://10.0.0.{host}/v1", "model": "r1"}} for host in (3, 4))
    locked = {"stages": {"distill": {"cmd": "", "params": {"params.yaml": {"distill": old}}}}}
    yaml = YAML(typ="safe")
    yaml.dump(locked, tmp_path / "dvc.lock")
    yaml.dump({"distill": new, "prefer": {"judge": new["teacher"]}}, tmp_path / "params.yaml")
    changes = [{"changed deps": {"params.yaml": {"distill": "modified", "prefer": "new"}}}]
    said = list(map(str, reasons("distill", changes, PRIVATE)))
    assert said == ["distill.teacher.base_url changed", 'prefer: new, {"judge": {"model": "r1"}}']
    assert "10.0.0.3" in "".join(map(str, reasons("distill", changes))), "make why says it on the user's own terminal"
