"""Training: what it sees, what it writes, what it refuses. A tiny student trains for real, in seconds."""

import csv
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from stages.convert import main as convert
from stages.lib.rows import read_rows, write_rows
from stages.lib.rows.distilled import Distilled
from stages.lib.training import TooLong
from stages.train import main as train
from tests.trainings import stored

TAGS = {"role_tag": "from", "content_tag": "value", "user_tag": "user", "assistant_tag": "assistant"}
TAGS |= {"system_tag": "system"}
Params = Callable[..., Path]
Runs = Callable[..., Result]


def distilled(count: int) -> list[Distilled]:
    return [
        Distilled(
            id=f"sum-{index}",
            question=f"What is {index} + 5?",
            answer=str(index + 5),
            sample=0,
            reasoning=f"{index} + 5 = {index + 5}",
            response=f"The answer is {index + 5}.",
            finish_reason="stop",
            model="solver",
            usage={},
        )
        for index in range(count)
    ]


@pytest.fixture
def dataset(tmp_path: Path, tiny_params: Params, runs: Runs) -> Path:
    write_rows(tmp_path / "rows.jsonl", distilled(10))
    folder = tmp_path / "sums"
    params = tiny_params()
    runs(
        convert,
        "--rows",
        tmp_path / "rows.jsonl",
        "--out",
        folder,
        "--metrics",
        tmp_path / "c.json",
        "--lengths",
        tmp_path / "c.csv",
        "--params",
        params,
    )
    return folder


@pytest.fixture(autouse=True)
def _own_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run facts and scratch folders go to tmp_path, as they go to the repository where dvc runs the stage."""
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))


def train_options(tmp_path: Path, dataset: Path, params: Path, name: str = "model") -> list[object]:
    paths = ["--dataset", dataset, "--model", tmp_path / name, "--metrics", tmp_path / f"{name}.json"]
    paths += ["--left-out", tmp_path / f"{name}.left_out.jsonl", "--loss", tmp_path / f"{name}.csv"]
    return ["--arm", "filtered", *paths, "--params", params]


def weights_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_an_arm_is_trained_merged_and_saved_with_its_template(
    tmp_path: Path, dataset: Path, tiny_params: Params, tiny_student: Path, runs: Runs
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    runs(train, *train_options(tmp_path, dataset, tiny_params()))
    saved = tmp_path / "model"
    assert not list(saved.glob("adapter*")), "the adapter was to be merged"
    model, student = (AutoModelForCausalLM.from_pretrained(folder) for folder in (saved, tiny_student))
    assert model.state_dict().keys() == student.state_dict().keys()
    assert weights_digest(saved) != weights_digest(tiny_student)
    assert (
        AutoTokenizer.from_pretrained(saved).chat_template == AutoTokenizer.from_pretrained(tiny_student).chat_template
    )
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert (metrics["rows"], metrics["steps"], metrics["epochs"]) == (10, 3, 1.0)
    losses = list(csv.DictReader((tmp_path / "model.csv").open()))
    assert [row["step"] for row in losses] == ["1", "2", "3"]
    assert float(losses[-1]["loss"]) < float(losses[0]["loss"])
    assert not list((tmp_path / ".cache" / "training").iterdir()), "the scratch folder was to be removed"


@pytest.mark.heavy
def test_the_adapter_is_kept_apart_where_that_is_asked_for(
    tmp_path: Path, dataset: Path, tiny_params: Params, tiny_student: Path, runs: Runs
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    runs(train, *train_options(tmp_path, dataset, tiny_params({"train.finetuning.keep_adapter": True})))
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    student = AutoModelForCausalLM.from_pretrained(tiny_student)
    apart = PeftModel.from_pretrained(student, tmp_path / "model" / "adapter")
    tokens = torch.arange(20)[None]
    assert torch.allclose(merged(tokens).logits, apart(tokens).logits, atol=1e-5)


@pytest.mark.parametrize("kind", ["lora", pytest.param("full", marks=pytest.mark.heavy)])
def test_the_same_params_give_the_same_bytes(
    tmp_path: Path, dataset: Path, tiny_params: Params, runs: Runs, kind: str
) -> None:
    params = tiny_params({"train.finetuning.kind": kind})
    for name in ("one", "two"):
        runs(train, *train_options(tmp_path, dataset, params, name))
    assert weights_digest(tmp_path / "one") == weights_digest(tmp_path / "two")
    for suffix in ("json", "csv"):
        assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"two.{suffix}").read_bytes()


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_checkpointing_gradients_changes_nothing_that_is_learnt(
    tmp_path: Path, dataset: Path, tiny_params: Params, runs: Runs, kind: str
) -> None:
    for name, checkpointed in (("kept", False), ("reckoned-twice", True)):
        params = tiny_params({"train.finetuning.kind": kind, "train.gradient_checkpointing": checkpointed})
        runs(train, *train_options(tmp_path, dataset, params, name))
    assert weights_digest(tmp_path / "kept") == weights_digest(tmp_path / "reckoned-twice")


def test_max_steps_overrides_the_epochs(tmp_path: Path, dataset: Path, tiny_params: Params, runs: Runs) -> None:
    runs(train, *train_options(tmp_path, dataset, tiny_params({"arms.filtered.max_steps": 5})))
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert metrics["steps"] == 5
    assert metrics["epochs"] == pytest.approx(5 / 3, abs=0.01)


def test_the_loss_is_on_the_answer_and_its_end_alone(tmp_path: Path, dataset: Path, tiny_student: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.lib.params import load_params
    from stages.lib.trainers.trl import _config, _trainer
    from stages.lib.training import Job
    from stages.lib.training.dataset import ShareGpt

    params = load_params(Path("params.yaml"))
    rows = [*ShareGpt(dataset)]
    tokenizer = AutoTokenizer.from_pretrained(tiny_student)
    markers = params.convert.markers
    job = Job(
        "filtered",
        rows,
        tiny_student,
        params.train,
        params.arms["filtered"],
        params.run,
        markers,
        dataset,
        rows=tmp_path,
    )
    model = AutoModelForCausalLM.from_pretrained(tiny_student)
    config = _config(job, str(dataset / "scratch"))
    trainer = _trainer(stored(job, dataset / "scratch"), model, tokenizer, config)
    row = trainer.train_dataset[0]
    trained = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    masked = [token for token, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100]
    assert tokenizer.decode(trained) == rows[0].assistant + "<|im_end|>\n"
    prompt = tokenizer.apply_chat_template(rows[0].messages()[:-1], add_generation_prompt=True, return_dict=False)
    assert masked == prompt, "an evaluation prompt has other tokens than the training prompt"


def test_rows_over_cutoff_len_are_left_out_and_counted(tmp_path: Path, tiny_params: Params, runs: Runs) -> None:
    rows = distilled(10)
    rows[3] = rows[3].model_copy(update={"reasoning": "so " * 2000})
    write_rows(tmp_path / "rows.jsonl", rows)
    paths = ["--rows", tmp_path / "rows.jsonl", "--out", tmp_path / "long", "--metrics", tmp_path / "c.json"]
    paths += ["--lengths", tmp_path / "c.csv"]
    runs(convert, *paths, "--params", tiny_params())
    runs(train, *train_options(tmp_path, tmp_path / "long", tiny_params()))
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert (metrics["in"], metrics["rows"], metrics["rows_too_long"]) == (10, 9, 1)
    assert metrics["left_out"] == {"too_long": 1, "cannot_be_shortened": 0}
    assert metrics["share_over_cutoff_len"] == 0.1
    (left_out,) = read_rows(tmp_path / "model.left_out.jsonl", TooLong, "")
    assert (left_out.id, left_out.reason, left_out.user) == ("filtered/3", "too_long", "What is 3 + 5?")
    assert left_out.tokens > left_out.cutoff_len == 512
    assert "so so so" in left_out.assistant


def test_a_dataset_that_is_too_long_altogether_is_refused(
    tmp_path: Path, dataset: Path, tiny_params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(train, *train_options(tmp_path, dataset, tiny_params({"arms.filtered.cutoff_len": 5})))
    assert "arms.filtered.cutoff_len" in line
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[{", "sample"),
        ("[]", "there is nothing in it"),
        ('[{"conversations": [{"from": "user", "value": "q"}]}]', "at least 2"),
        ('[{"conversations": [{"from": "user", "value": "q"}, {"from": "user", "value": "a"}]}]', "assistant turn"),
        ('[{"conversations": [{"from": "user", "value": "q"}, {"from": "assistant", "value": ""}]}]', "with text"),
    ],
)
def test_a_broken_dataset_is_refused(
    tmp_path: Path, tiny_params: Params, refuses: Callable[..., str], content: str, complaint: str
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "broken.json").write_text(content)
    (folder / "dataset_info.json").write_text(json.dumps({"broken": {"tags": TAGS}}))
    line = refuses(train, *train_options(tmp_path, folder, tiny_params()))
    assert str(folder / "broken.json") in line
    assert complaint in line


def test_other_tags_train_the_same_conversations(
    tmp_path: Path, dataset: Path, tiny_params: Params, runs: Runs
) -> None:
    from stages.lib.training.dataset import ShareGpt

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "human", "assistant_tag": "gpt"}
    params = tiny_params({f"convert.tags.{name}": text for name, text in tags.items()})
    other = tmp_path / "other"
    paths = ["--rows", tmp_path / "rows.jsonl", "--out", other, "--metrics", tmp_path / "c.json"]
    paths += ["--lengths", tmp_path / "c.csv"]
    runs(convert, *paths, "--params", params)
    assert [*ShareGpt(other)] == [*ShareGpt(dataset)]


@pytest.mark.parametrize("info", ["", "{}", '{"sums": {"file_name": "sums.json"}}', "[]"])
def test_a_dataset_without_its_description_is_refused(
    tmp_path: Path, dataset: Path, tiny_params: Params, refuses: Callable[..., str], info: str
) -> None:
    (dataset / "dataset_info.json").write_text(info)
    line = refuses(train, *train_options(tmp_path, dataset, tiny_params()))
    assert line.startswith(str(dataset / "dataset_info.json"))
    assert line.endswith("Run 'dvc repro convert@sums' to rebuild it.")


def test_a_missing_dataset_and_a_missing_student_are_named(
    tmp_path: Path, dataset: Path, project_params: Params, refuses: Callable[..., str]
) -> None:
    params = project_params({"train.student.kind": "path", "train.student.name": str(tmp_path / "nowhere")})
    assert str(tmp_path / "gone") in refuses(train, *train_options(tmp_path, tmp_path / "gone", params))
    assert str(tmp_path / "nowhere") in refuses(train, *train_options(tmp_path, dataset, params))


def test_a_student_that_is_no_installed_package_is_named(
    tmp_path: Path, dataset: Path, project_params: Params, refuses: Callable[..., str]
) -> None:
    line = refuses(train, *train_options(tmp_path, dataset, project_params({"train.student.name": "no_such_package"})))
    assert "no_such_package" in line
    assert "make setup" in line


def test_shortened_rows_are_trained_on_and_counted_apart(tmp_path: Path, tiny_params: Params, runs: Runs) -> None:
    rows = distilled(10)
    rows[3] = rows[3].model_copy(update={"reasoning": "So it goes on. " * 500})
    rows[4] = rows[4].model_copy(update={"reasoning": "so " * 2000})
    write_rows(tmp_path / "rows.jsonl", rows)
    paths = ["--rows", tmp_path / "rows.jsonl", "--out", tmp_path / "long", "--metrics", tmp_path / "c.json"]
    paths += ["--lengths", tmp_path / "c.csv"]
    params = tiny_params({"train.on_too_long": "shorten_reasoning"})
    runs(convert, *paths, "--params", params)
    runs(train, *train_options(tmp_path, tmp_path / "long", params))
    metrics = json.loads((tmp_path / "model.json").read_text())
    assert (metrics["rows"], metrics["rows_shortened"], metrics["rows_too_long"]) == (9, 1, 1)
    assert metrics["left_out"] == {"too_long": 0, "cannot_be_shortened": 1}
    assert metrics["share_over_cutoff_len"] == 0.2


def changed_student(student: Path, folder: Path, **tokens: str) -> Path:
    """A copy of a student with other special tokens, and the eos of its config and generation_config to match."""
    from transformers import AutoTokenizer, GenerationConfig

    shutil.copytree(student, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name, token in tokens.items():
        setattr(tokenizer, name, token)
    tokenizer.save_pretrained(folder)
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = json.loads((folder / "config.json").read_bytes())
    (folder / "config.json").write_text(json.dumps(config | ids))
    GenerationConfig(**ids).save_pretrained(folder)
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize(
    "tokens",
    [
        pytest.param({}, id="eos ends the turn, as in Qwen2.5-7B-Instruct"),
        pytest.param({"eos_token": "<|endoftext|>"}, id="eos is none of the template's, as in Qwen2.5-7B"),
        pytest.param({"pad_token": "<|im_end|>"}, id="padding looks like the end of a turn, as in SmolLM2"),
    ],
)
def test_a_trained_student_gives_its_answer_and_stops(
    tmp_path: Path,
    dataset: Path,
    tiny_params: Params,
    tiny_student: Path,
    runs: Runs,
    tokens: dict[str, str],
    kind: str,
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.lib.training.dataset import ShareGpt

    student = changed_student(tiny_student, tmp_path / "student", **tokens)
    samples = json.loads((dataset / "sums.json").read_bytes())
    (dataset / "sums.json").write_text(json.dumps([samples[0], samples[0]]))
    changes: dict[str, object] = {"train.student.name": str(student), "train.finetuning.kind": kind}
    changes |= {"arms.filtered.max_steps": 80, "arms.filtered.learning_rate": 0.01, "train.finetuning.r": 64}
    runs(train, *train_options(tmp_path, dataset, tiny_params(changes)))

    saved = tmp_path / "model"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(saved), AutoTokenizer.from_pretrained(saved)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>"
    stops = json.loads((saved / "generation_config.json").read_bytes())["eos_token_id"]
    assert end in (stops if isinstance(stops, list) else [stops])
    row = ShareGpt(dataset).shape.first
    prompt = tokenizer.apply_chat_template(row.messages()[:-1], add_generation_prompt=True, return_tensors="pt")
    said = model.generate(**prompt, max_new_tokens=300, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(said) == row.assistant + "<|im_end|>"


def test_the_end_of_a_turn_bears_a_loss_in_a_padded_batch(
    tmp_path: Path, dataset: Path, tiny_params: Params, tiny_student: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from stages.lib.params import load_params
    from stages.lib.trainers.trl import _config, _trainer
    from stages.lib.training import Job
    from stages.lib.training.dataset import ShareGpt

    student = changed_student(tiny_student, tmp_path / "student", pad_token="<|im_end|>")
    params, rows = load_params(tiny_params()), [*ShareGpt(dataset)]
    markers = params.convert.markers
    job = Job(
        "filtered",
        rows,
        student,
        params.train,
        params.arms["filtered"],
        params.run,
        markers,
        tmp_path / "m",
        rows=tmp_path,
    )
    tokenizer, model = AutoTokenizer.from_pretrained(student), AutoModelForCausalLM.from_pretrained(student)
    config = _config(job, str(tmp_path / "scratch"))
    trainer = _trainer(stored(job, tmp_path / "scratch"), model, tokenizer, config)
    batch = next(iter(trainer.get_train_dataloader()))
    assert (batch["labels"] == tokenizer.eos_token_id).sum(dim=1).tolist() == [1] * len(batch["labels"])


@pytest.mark.heavy
def test_the_embedded_student_is_taught_the_end_of_its_turn(tmp_path: Path) -> None:
    from stages.lib.params import load_params
    from stages.lib.students import student_tokenizer
    from stages.lib.tokens.tokenizer import end_of_turn
    from stages.lib.training import Conversation, Job

    params = load_params(Path("params.yaml"))
    rows, arm, markers = [Conversation("", "1 + 1?", "2")], params.arms["filtered"], params.convert.markers
    job = Job("filtered", rows, Path("smollm2"), params.train, arm, params.run, markers, Path("model"), rows=tmp_path)
    assert end_of_turn(job, student_tokenizer(params.train.student)) == "<|im_end|>"


def test_a_template_without_an_end_token_is_refused(
    tmp_path: Path, dataset: Path, tiny_params: Params, tiny_student: Path, refuses: Callable[..., str]
) -> None:
    student = changed_student(tiny_student, tmp_path / "student")
    template = student / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_end|>", ""))
    params = tiny_params({"train.student.name": str(student)})
    assert "writes no special token after an answer" in refuses(train, *train_options(tmp_path, dataset, params))


def test_the_metrics_account_for_rows_steps_and_tokens(
    tmp_path: Path, dataset: Path, tiny_params: Params, tiny_student: Path, runs: Runs
) -> None:
    from transformers import AutoTokenizer

    from stages.lib.training.dataset import ShareGpt

    params = {"arms.filtered.num_train_epochs": 2.0, "train.gradient_accumulation_steps": 2}
    runs(train, *train_options(tmp_path, dataset, tiny_params(params)))
    metrics = json.loads((tmp_path / "model.json").read_bytes())
    tokenizer, rows = AutoTokenizer.from_pretrained(tiny_student), [*ShareGpt(dataset)]
    answers = [tokenizer(row.assistant + "<|im_end|>\n")["input_ids"] for row in rows]
    prompts = [tokenizer.apply_chat_template(row.messages()[:-1], add_generation_prompt=True) for row in rows]
    trained = 2 * sum(map(len, answers))
    losses = [float(row["loss"]) for row in csv.DictReader((tmp_path / "model.csv").open())]
    assert metrics.pop("student")["name"] == tiny_student.name
    assert metrics == {
        "in": 10,
        "rows": 10,
        "rows_shortened": 0,
        "rows_too_long": 0,
        "left_out": {"too_long": 0, "cannot_be_shortened": 0},
        "steps": 4,
        "epochs": 2.0,
        "tokens_seen": trained + 2 * sum(len(prompt["input_ids"]) for prompt in prompts),
        "tokens_trained": trained,
        "effective_batch": 8,
        "share_over_cutoff_len": 0.0,
        "first_loss": losses[0],
        "last_loss": losses[-1],
    }


def test_a_row_without_a_loss_at_its_end_is_refused(tmp_path: Path, tiny_student: Path) -> None:
    from transformers import AutoTokenizer

    from stages.lib.params import load_params
    from stages.lib.tokens.tokenizer import Ends, check_end_is_trained
    from stages.lib.training import Conversation, Job, TrainingError

    params, tokenizer = load_params(Path("params.yaml")), AutoTokenizer.from_pretrained(tiny_student)
    rows, arm, markers = [Conversation("", "1 + 1?", "2")], params.arms["filtered"], params.convert.markers
    job = Job("filtered", rows, tiny_student, params.train, arm, params.run, markers, Path("model"), rows=tmp_path)
    check_end_is_trained(job, Ends(rows=1, without=0, ends=1), 1, tokenizer)
    with pytest.raises(TrainingError, match=r"in 1 of 2 rows <\|im_end\|> has no loss"):
        check_end_is_trained(job, Ends(rows=2, without=1, ends=1), 2, tokenizer)
