"""The loss of arms with ``alpha``: cross-entropy mixed with the divergence from the teacher's probabilities.

    loss of a token = (1 - alpha) * cross-entropy + alpha * KL(teacher || student)

The teacher's probabilities are those of its k likeliest tokens; all others are one bucket with the rest. Scaling the k
up to 1 without it would teach the student that all others are impossible: a biased estimate (Anshumann et al., "Sparse
Logit Sampling", arXiv 2503.16870). TRL's own distillation from top-k probabilities has the same bucket
(trl/experimental/server_distillation, ``loss_add_tail``). A token without probabilities has cross-entropy alone.

``follow_teacher`` changes a prepared SFTTrainer: its collator finds the probabilities by the tokens of each row, so
packing, grouping by length, accumulation and several processes need nothing more.
"""

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from stages.lib.logprobs.scores import Targets

PLACES, IDS, LOGPROBS = FIELDS = ("teacher_places", "teacher_ids", "teacher_logprobs")
_MOST = -1e-7  # the logarithm of the most that the k tokens may have together, as in TRL


@dataclass
class TeacherCollator:
    """A collator that adds the targets: flat places in the batch's tokens [n], ids and logarithms there [n, k]."""

    inner: Any
    targets: Targets

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Make the batch and add the targets of all its rows, packed ones too."""
        import numpy as np
        import torch

        batch: dict[str, Any] = self.inner(rows)
        width = batch["input_ids"].shape[1]
        flattened = len(batch["input_ids"]) < len(rows)  # with packing, all rows are one after the other
        begin, found = 0, []
        for number, row in enumerate(rows):
            begin = begin if flattened else number * width
            for ids in rows_in(row):
                found.append((begin, self.targets.of(ids)))
                begin += len(ids)
        places = np.concatenate([start + scored.positions for start, scored in found])
        batch[PLACES] = torch.from_numpy(places.astype(np.int64))
        batch[IDS] = torch.from_numpy(np.concatenate([scored.ids for _, scored in found]).astype(np.int64))
        batch[LOGPROBS] = torch.from_numpy(np.concatenate([scored.logprobs for _, scored in found]))
        return batch


def rows_in(row: dict[str, Any]) -> list[list[int]]:
    """The tokens of the rows in a row of the dataset, which may be a pack of several."""
    ids = list(row["input_ids"])
    ends = accumulate(row.get("seq_lengths") or [len(ids)], initial=0)
    return [ids[start:end] for start, end in pairwise(ends)]


def follow_teacher(trainer: Any, targets: Targets, alpha: float) -> None:
    """Train on the mixed loss."""
    trainer.data_collator = TeacherCollator(trainer.data_collator, targets)

    def compute_loss(
        model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        import torch

        asked = {name: value for name, value in inputs.items() if name not in ("labels", *FIELDS)}
        outputs = model(**asked, use_cache=False)
        total, tokens = mixed_loss(outputs.logits, inputs["labels"], {name: inputs[name] for name in FIELDS}, alpha)
        count = tokens if num_items_in_batch is None else num_items_in_batch
        loss = total / torch.as_tensor(count).clamp(min=1)
        # as in SFTTrainer: the number counts the tokens of all processes, and their gradients are averaged
        if trainer.args.average_tokens_across_devices and num_items_in_batch is not None:
            loss = loss * trainer.accelerator.num_processes
        return (loss, outputs) if return_outputs else loss

    trainer.compute_loss = compute_loss


def mixed_loss(logits: Any, labels: Any, targets: dict[str, Any], alpha: float) -> tuple[Any, int]:
    """The sum of the losses of all tokens with a label, and how many they are.

    ``logits`` [rows, tokens, vocabulary], ``labels`` [rows, tokens]; the targets as TeacherCollator gives them.
    """
    import torch

    places, ids, logprobs = (targets[name] for name in FIELDS)
    flat, wanted = logits.reshape(-1, logits.shape[-1]), labels.reshape(-1)
    trained = (wanted != -100).nonzero().squeeze(-1)
    of_token = flat[trained - 1].float()  # the logits before a token predict it
    sums = of_token.logsumexp(dim=-1)
    entropy = sums - of_token.gather(-1, wanted[trained].unsqueeze(-1)).squeeze(-1)
    index = torch.searchsorted(trained, places)  # all places are trained
    known = ids >= 0
    student = of_token[index].gather(-1, ids.clamp(min=0)) - sums[index].unsqueeze(-1)
    divergence = kl_with_rest(logprobs, student, known)
    return entropy.sum() + alpha * (divergence - entropy[index]).sum(), len(trained)


def kl_with_rest(teacher: Any, student: Any, known: Any) -> Any:
    """KL(teacher || student) [n] of logarithms [n, k] at the known tokens, with one bucket for all other tokens."""
    import torch

    known = known & teacher.isfinite()
    pairs = [each.masked_fill(~known, -torch.inf) for each in (teacher, student)]
    one, other = (torch.cat([each, _rest(each)], dim=-1) for each in pairs)
    counted = one.isfinite()
    difference = one.masked_fill(~counted, 0.0) - other.masked_fill(~counted, 0.0)
    return (one.exp() * difference).sum(dim=-1)


def _rest(logprobs: Any) -> Any:
    """The logarithm of what all other tokens have together [n, 1]."""
    return (-logprobs.logsumexp(dim=-1, keepdim=True).clamp(max=_MOST).expm1()).log()
