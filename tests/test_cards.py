"""Cards: what they say is in the run, the metadata is what the hubs' client reads, and both languages say the same."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from huggingface_hub import DatasetCard, ModelCard

from stages.lib.cards import CardError
from stages.lib.cards.__main__ import main
from stages.lib.cards.content import first_conversation
from stages.lib.cards.licences import terms_of
from stages.lib.comparison.results import Comparison
from tests.published_project import build_project
from tests.trainings import ON_POLICY

ROOT = Path(__file__).resolve().parents[1]
Runs = Callable[..., Result]
Refuses = Callable[..., str]


@pytest.fixture
def card(tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``card("--arm", "filtered", **changes of params)``: the path of the English card."""

    def write(option: str, name: str, changes: dict[str, Any] | None = None, **row: Any) -> Path:
        (tmp_path / "project").mkdir()
        monkeypatch.chdir(build_project(tmp_path / "project", changes, **row))
        runs(main, option, name)
        kind = "model" if option == "--arm" else "dataset"
        return tmp_path / "project" / "cards" / f"{kind}-{name}.md"

    return write


def test_a_models_card_has_the_scores_of_the_run_with_their_intervals(card: Callable[..., Path]) -> None:
    path = card("--arm", "filtered")
    committed = Comparison.model_validate_json((ROOT / "metrics" / "compare.json").read_bytes())
    score = committed.arms["filtered"].benchmarks["heldout"]
    data = ModelCard.load(path).data
    assert (data.license, data.base_model) == ("apache-2.0", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (data.pipeline_tag, data.library_name, data.language) == ("text-generation", "transformers", ["en"])
    (result,) = data.eval_results
    assert (result.dataset_name, result.metric_value) == ("heldout", pytest.approx(100 * score.value))
    assert result.metric_args == {
        "n": score.n,
        "confidence": committed.confidence,
        "low": pytest.approx(100 * score.low, abs=0.01),
        "high": pytest.approx(100 * score.high, abs=0.01),
    }
    shown = f"{100 * score.value:.1f} % | {100 * score.low:.1f} – {100 * score.high:.1f} | {score.n} |"
    for text in (path.read_text(), path.with_suffix(".zh.md").read_text()):
        assert shown in text
        for pair in committed.pairs.values():
            assert (f"{pair.first} − {pair.second}" in text) == ("filtered" in (pair.first, pair.second))


def test_a_datasets_card_has_the_yields_the_prompts_and_the_hashes(card: Callable[..., Path]) -> None:
    path = card("--dataset", "filtered")
    data = DatasetCard.load(path).data
    assert (data.license, data.size_categories, data.language) == ("apache-2.0", "n<1K", ["en"])
    kept = json.loads((ROOT / "metrics" / "filter.json").read_bytes())
    prompt = (ROOT / "stages" / "prompts" / "step_by_step.txt").read_text().strip()
    lock = (ROOT / "dvc.lock").read_text()
    for text in (path.read_text(), path.with_suffix(".zh.md").read_text()):
        assert f"| {kept['in']} | {kept['kept']} | {kept['rejected_by_reason']['wrong_answer']} " in text
        assert prompt in text
        hashes = re.findall(r"`([0-9a-f]{32}(?:\.dir)?)`", text)
        assert len(hashes) == 2
        assert all(each in lock for each in hashes)


@pytest.mark.parametrize(("option", "name"), [("--arm", "filtered"), ("--dataset", "unfiltered")])
def test_both_languages_say_the_same(card: Callable[..., Path], option: str, name: str) -> None:
    path = card(option, name)
    say_the_same(path.read_text(), path.with_suffix(".zh.md").read_text())


def say_the_same(english: str, chinese: str) -> None:
    body = english.split("\n---\n", 1)[1]
    for pattern in (r"^#+ ", r"^\|.*", r"^```\w*$", r"^\* "):
        assert len(re.findall(pattern, body, re.MULTILINE)) == len(re.findall(pattern, chinese, re.MULTILINE)), pattern
    prose = re.sub(r"```.*?```", "", chinese, flags=re.DOTALL)
    assert not re.search(r"[\u4e00-\u9fff][,;:!?]", prose), "half-width punctuation after Chinese"


def test_an_on_policy_arms_card_says_what_it_starts_from_and_learned_from(
    tmp_path: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = {"kind": "hub", "name": "Qwen/Qwen2.5-32B-Instruct", "revision": "a09a35"}
    arm = ON_POLICY | {"teacher": {"source": "big", "worked_examples": 2}}
    (tmp_path / "project").mkdir()
    project = build_project(tmp_path / "project", {"on_policy": {"polished": arm}, "teachers": {"big": big}})
    start = json.loads((project / "metrics/train/filtered.json").read_bytes())
    seen: dict[str, Any] = {"prompts": 64, "tokens_prompted": 3100, "tokens_rolled_out": 2890, "tokens_scored": 2890}
    seen |= {"tokens_of_teacher": 15990, "share_cut_off": 0.125}
    training = start | {"start_from": "filtered", "teacher": {**big, "sha256": "5e7f"}, "on_policy": seen, "steps": 16}
    (project / "metrics/train/polished.json").write_text(json.dumps(training))
    comparison = json.loads((project / "metrics/compare.json").read_bytes())
    comparison["arms"]["polished"] = comparison["arms"]["filtered"]
    names: dict[str, Any] = {"first": "polished", "second": "base", "text": "Think."}
    comparison["warnings"] = [{"code": "no_prompt", "arms": ["polished", "base"], "values": names}]
    (project / "metrics/compare.json").write_text(json.dumps(comparison))
    out = "  train-on-policy@polished: {cmd: train, outs: [{path: models/polished, md5: 0123abcd.dir}]}\n"
    (project / "dvc.lock").write_text((project / "dvc.lock").read_text() + out)
    monkeypatch.chdir(project)
    runs(main, "--arm", "polished")
    english, chinese = ((project / "cards" / f"model-polished{end}").read_text() for end in (".md", ".zh.md"))
    say_the_same(english, chinese)
    for text in (english, chinese):
        assert "`filtered`" in text and f"{start['tokens_trained']}" in text
        assert "| Qwen/Qwen2.5-32B-Instruct |" in text and "| chain-sum-solver |" in text, "the teachers of both parts"
        assert all(each in text for each in ("a09a35", "`5e7f`", "15990", "2890", "12.5 %", "| `models/polished` |"))
        assert "worked_examples: 2" in text
    assert "Nothing looked whether these answers were right" in english
    assert "with 2 worked examples" in english and "reverse KL" in english


def test_no_address_of_a_server_is_in_a_card(card: Callable[..., Path]) -> None:
    served = {"kind": "openai_compatible", "base_url": "http://10.1.2.3:8000/v1", "model": "deepseek-r1"}
    nulls: dict[str, Any] = {"temperature": None, "top_p": None, "max_tokens": None, "extra_body": {}}
    text = card("--dataset", "filtered", {"distill.teacher": served | nulls}).read_text()
    assert "10.1.2.3" not in text
    assert "| teacher | deepseek-r1 | mit | https://github.com/deepseek-ai/DeepSeek-R1" in text


def test_a_teacher_whose_terms_restrict_training_is_warned_of_in_both_languages(card: Callable[..., Path]) -> None:
    served = {"kind": "openai_compatible", "base_url": "http://10.1.2.3:8000/v1", "model": "gpt-4o"}
    nulls: dict[str, Any] = {"temperature": None, "top_p": None, "max_tokens": None, "extra_body": {}}
    path = card("--dataset", "filtered", {"distill.teacher": served | nulls})
    assert "**Warning: the terms of gpt-4o restrict" in path.read_text()
    assert "**警告：gpt-4o 的服务条款" in path.with_suffix(".zh.md").read_text()


@pytest.mark.parametrize(
    ("kind", "name", "licence", "training"),
    [
        ("teachers", "deepseek-reasoner", "mit", "allowed"),
        ("teachers", "deepseek-ai/DeepSeek-R1", "mit", "allowed"),
        ("teachers", "DeepSeek-R1-Distill-Llama-70B", "other", "conditions"),
        ("teachers", "o3-mini", "other", "forbidden"),
        ("teachers", "claude-sonnet-4", "other", "forbidden"),
        ("teachers", "our-model", "unknown", "unknown"),
        ("students", "Qwen/Qwen2.5-7B-Instruct", "apache-2.0", "unknown"),
        ("students", "/data/models/Qwen2.5-3B-Instruct", "other", "unknown"),
        ("students", "our-student", "unknown", "unknown"),
        ("questions", "modelscope/gsm8k", "mit", "unknown"),
        ("questions", "openai/gsm8k", "mit", "unknown"),
        ("questions", "simplescaling/s1K-1.1", "mit", "unknown"),
        ("questions", "juletxara/mgsm", "cc-by-sa-4.0", "unknown"),
        ("questions", "someone/gsm8k-extra", "unknown", "unknown"),
    ],
)
def test_the_table_knows_the_licence_of(kind: Any, name: str, licence: str, training: str) -> None:
    terms = terms_of(kind, name)
    assert (terms.licence, terms.training) == (licence, training)
    assert bool(terms.source) == (licence != "unknown")


def test_what_is_missing_is_named(tmp_path: Path, refuses: Refuses, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(build_project(project))
    assert refuses(main, "--arm", "mine") == "params.yaml: no arm 'mine'. There are: unfiltered, filtered."
    (project / "metrics" / "train" / "filtered.json").unlink()
    line = refuses(main, "--arm", "filtered")
    assert line == "metrics/train/filtered.json: no such file. Run 'dvc repro train@filtered' to write it."
    (project / "dvc.lock").unlink()
    assert refuses(main).endswith("dvc.lock: no such file, so no result is recorded. Run 'make repro'.")


def test_of_a_dataset_only_the_first_conversation_is_read(tmp_path: Path) -> None:
    path = tmp_path / "filtered.json"
    first = {"conversations": [{"from": "human", "value": "]} 小明 \\" * 20_000}]}
    for name, written in (
        ("a list of convert", json.dumps([first, first], indent=4)),
        ("one line", json.dumps([first])),
    ):
        path.write_text(written, encoding="utf-8")
        shown = first_conversation(path)
        assert shown.startswith('{\n  "conversations": ['), name
        assert len(shown) < 5000
    path.write_text(json.dumps([first]) + "no JSON")
    assert first_conversation(path) == shown
    path.write_text(json.dumps([first])[:-9], encoding="utf-8")
    with pytest.raises(CardError, match=r"filtered\.json: not a JSON list of conversations"):
        first_conversation(path)
    path.write_text("[\n    \n]")
    with pytest.raises(CardError, match="no conversations, so there is nothing"):
        first_conversation(path)
