"""Which rows meet in a step of TRL's: by length, packed, in several processes; no row sees another."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from stages.lib.params import ParamsError
from stages.lib.tokens.tokenizer import aligned_tokenizer
from stages.lib.trainers.trl import _config, _trainer
from stages.lib.trainers.trl.batches import CountingCollator, labelled, leaks, padded_with_fillers, row_order
from stages.lib.training import Conversation, Job
from stages.train import main as train
from tests.trainings import job_of, stored, write_sharegpt

Params = Callable[..., Path]


def uneven(count: int) -> list[Conversation]:
    """Sums whose answers are of very different lengths."""
    return [
        Conversation(
            "Be brief.", f"What is {n} + 5?", f"<think>{'on ' * (n * 7 % 31)}</think> <answer>{n + 5}</answer>"
        )
        for n in range(count)
    ]


@pytest.fixture
def job(tmp_path: Path, tiny_params: Params) -> Callable[..., Job]:
    """``job({"train.trainer.packing": True})``: a training of ten uneven rows, not begun."""

    def make(changes: dict[str, Any] | None = None) -> Job:
        return job_of(tiny_params(changes), tmp_path / "model", uneven(10))

    return make


def trainer_of(job: Job, scratch: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job.student, dtype=torch.float32)
    return _trainer(stored(job, scratch), model, aligned_tokenizer(job), _config(job, str(scratch)))


def rows_of(dataset: Any) -> list[list[int]]:
    """The labels of each row; packed rows are split."""
    found = []
    for row in dataset:
        ends = list(accumulate(row.get("seq_lengths") or [len(row["labels"])], initial=0))
        found += [row["labels"][start:end] for start, end in pairwise(ends)]
    return found


def token_losses(trainer: Any) -> dict[tuple[int, ...], list[float]]:
    """The loss of each trained token as the trainer's own batches give it, by the tokens of its row."""
    import torch

    found: dict[tuple[int, ...], list[float]] = {}
    rows = [dict(row) for row in trainer.train_dataset]
    for start in range(0, len(rows), 4):
        batch = trainer.data_collator(rows[start : start + 4])
        labels, tokens = batch.pop("labels"), batch["input_ids"]
        with torch.no_grad():
            logits = trainer.model(**batch, use_cache=False).logits
        for line, begin, end in places(batch):
            wanted = labels[line, begin + 1 : end]
            losses = torch.nn.functional.cross_entropy(logits[line, begin : end - 1], wanted, reduction="none")
            found[tuple(tokens[line, begin:end].tolist())] = losses[wanted != -100].tolist()
    return found


def places(batch: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Where the rows of a batch stand: on which line of it, from where to where."""
    if "cu_seq_lens_q" in batch:
        return [(0, begin, end) for begin, end in pairwise(batch["cu_seq_lens_q"].tolist())]
    return [(line, 0, length) for line, length in enumerate(batch["attention_mask"].sum(1).tolist())]


def test_packed_and_unpacked_rows_have_the_same_loss_at_every_token(job: Callable[..., Job], tmp_path: Path) -> None:
    packed, unpacked = (
        trainer_of(job({"train.trainer.packing": packing, "arms.filtered.cutoff_len": 256}), tmp_path / str(packing))
        for packing in (True, False)
    )
    assert len(packed.train_dataset) < len(unpacked.train_dataset) == 10
    assert sorted(rows_of(packed.train_dataset)) == sorted(rows_of(unpacked.train_dataset))
    ours, plain = token_losses(packed), token_losses(unpacked)
    assert ours.keys() == plain.keys()
    assert sum(map(len, plain.values())) > 100
    for row, losses in plain.items():
        assert ours[row] == pytest.approx(losses, abs=1e-4)


def test_a_model_in_which_packed_rows_would_see_each_other_is_known() -> None:
    from transformers import BloomConfig, BloomForCausalLM, Qwen2Config, Qwen2ForCausalLM, set_seed

    set_seed(0)
    small = {"vocab_size": 64, "hidden_size": 32}
    assert leaks(BloomForCausalLM(BloomConfig(**small, n_layer=2, n_head=2))), "it knows no position ids"
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2, "intermediate_size": 32}
    for attention in ("sdpa", "eager"):
        assert not leaks(Qwen2ForCausalLM._from_config(Qwen2Config(**small, **heads), attn_implementation=attention))


def test_packing_is_off_with_a_word_where_rows_would_see_each_other(
    job: Callable[..., Job], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    packed = job({"train.trainer.packing": True, "train.finetuning.kind": "full"})
    tokenizer = aligned_tokenizer(packed)
    model = BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2))
    config = _config(packed, str(tmp_path / "scratch"))
    trainer = _trainer(stored(packed, tmp_path / "rows"), model, tokenizer, config)
    assert len(trainer.train_dataset) == 10
    assert "train.trainer.packing: off: in a BloomForCausalLM, packed rows would attend to each other" in caplog.text


@pytest.mark.heavy
def test_a_packed_training_accounts_for_its_rows_and_tokens(
    tmp_path: Path, tiny_params: Params, runs: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    write_sharegpt(tmp_path / "sums", uneven(10))
    metrics = {}
    for packing in (True, False):
        changes = {
            "train.trainer.packing": packing,
            "arms.filtered.cutoff_len": 256,
            "train.per_device_train_batch_size": 1,
        }
        paths = {"dataset": tmp_path / "sums", "model": tmp_path / f"{packing}", "loss": tmp_path / "loss.csv"}
        paths |= {"metrics": tmp_path / "metrics.json", "left-out": tmp_path / "left_out.jsonl"}
        paths |= {"params": tiny_params(changes | {"arms.filtered.num_train_epochs": 2.0})}
        runs(train, "--arm", "filtered", *(text for key, path in paths.items() for text in (f"--{key}", path)))
        metrics[packing] = json.loads((tmp_path / "metrics.json").read_bytes())
    for name in ("rows", "epochs", "tokens_seen", "tokens_trained"):
        assert metrics[True][name] == metrics[False][name], name
    packs = metrics[True]["steps"] // 2
    assert packs < 10
    assert (metrics[False]["steps"], metrics[False]["effective_batch"]) == (20, 1)
    assert metrics[True]["effective_batch"] == round(10 / packs)


def test_packing_and_grouping_by_length_are_not_asked_for_at_once(job: Callable[..., Job]) -> None:
    with pytest.raises(ParamsError, match="packing fills rows to one length, so group_by_length has no effect"):
        job({"train.trainer.packing": True, "train.trainer.group_by_length": True})


def test_rows_of_similar_length_share_a_step(job: Callable[..., Job]) -> None:
    lengths = np.array([n * 37 % 101 for n in range(96)], np.int32)
    order = row_order(lengths, job({"train.trainer.group_by_length": True}).train, processes=1)
    drawn = list(order)
    assert sorted(drawn) == list(range(96))
    spread = [max(step) - min(step) for step in ([lengths[n] for n in drawn[at : at + 4]] for at in range(0, 96, 4))]
    assert sum(spread) / len(spread) < 6, "by chance it is 60"
    assert list(order) == drawn
    order.set_epoch(1)
    assert list(order) != drawn


@pytest.mark.parametrize("rows", [1, 3, 4, 27, 30, 450])
def test_the_steps_come_by_chance_but_for_the_longest_and_an_incomplete_one(job: Callable[..., Job], rows: int) -> None:
    lengths = np.array([n * 37 % 101 for n in range(rows)], np.int32)
    order = row_order(lengths, job({"train.trainer.group_by_length": True}).train, processes=1)
    drawn = list(order)[:rows]  # behind them: what fills the last batch up
    assert sorted(drawn) == list(range(rows))
    steps = [[lengths[n] for n in drawn[at : at + 4]] for at in range(0, rows, 4)]
    whole = [max(step) for step in steps if len(step) == 4]
    assert whole[:1] == sorted(whole, reverse=True)[:1], "what takes the most memory is tried at once"
    if rows > 20:
        assert whole != sorted(whole, reverse=True)


def test_grouping_by_length_pads_less(job: Callable[..., Job], tmp_path: Path) -> None:
    from stages.lib.trainers.trl import _set_row_order

    shares = []
    for grouped in (True, False):
        one = replace(job({"train.trainer.group_by_length": grouped}), conversations=uneven(48))
        trainer = trainer_of(one, tmp_path / str(grouped))
        tokenizer = aligned_tokenizer(one)
        _set_row_order(trainer, one, tokenizer, labelled(trainer.train_dataset, tokenizer.eos_token_id))
        batches = list(trainer.get_train_dataloader())
        assert sum(len(batch["input_ids"]) for batch in batches) == 48
        shares.append(trainer.data_collator.padding_share)
    assert 0 < shares[0] < shares[1] / 2


@pytest.mark.parametrize(("rows", "lack"), [(11, 1), (12, 0), (9, 3)])
def test_rows_without_a_loss_fill_up_what_the_processes_lack(job: Callable[..., Job], rows: int, lack: int) -> None:
    from datasets import Dataset

    order = row_order(np.full(rows, 5, np.int32), job({"train.per_device_train_batch_size": 2}).train, processes=2)
    drawn = list(order)
    assert sorted(drawn[:rows]) == list(range(rows))
    assert drawn[rows:] == list(range(rows, rows + lack))
    dataset = Dataset.from_list([{"input_ids": [1, 2], "labels": [-100, 2], "text": "x"}] * rows)
    more = padded_with_fillers(dataset, order.fillers, 7)
    assert len(more) == rows + lack
    assert sum(label != -100 for row in more["labels"] for label in row) == rows


def test_the_collator_counts_tokens_and_places() -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    counting = CountingCollator(DataCollatorForLanguageModeling(pad_token_id=0))
    counting([{"input_ids": [1, 2, 3, 4]}, {"input_ids": [1]}])
    assert counting.padding_share == pytest.approx(3 / 8)


def test_an_npu_steps_without_the_fused_kernel_that_other_devices_have(job: Callable[..., Job], tmp_path: Path) -> None:
    for device, optim in (("cpu", "adamw_torch_fused"), ("npu:1", "adamw_torch")):
        assert trainer_of(job({"run.device": device}), tmp_path / device).args.optim == optim
