"""Worked examples, which the teacher sees before the student's question and the student does not.

With ``teacher.worked_examples: 3``, three other questions of the dataset with their answers are earlier turns of the
teacher's conversation. So the teacher may be the student itself: it then learns to answer as if it had seen them.
"""

import random
from functools import cache
from typing import Any

from stages.lib.chat_template import Messages, prompt_ids
from stages.lib.params import OnPolicyArm
from stages.lib.training import Conversation, Job, TrainingError


def longer_prompts(job: Job, tokenizer: Any) -> list[list[int]]:
    """The tokens of the teacher's prompt for each conversation; empty where it sees those of the student."""
    assert isinstance(job.arm, OnPolicyArm)
    if not (count := job.arm.teacher.worked_examples):
        return []
    examples = {row.user: row for row in job.conversations if not row.history}
    if len(examples) <= count:
        raise TrainingError(
            f"on_policy.{job.name}.teacher.worked_examples: {count} of other questions, and the dataset "
            f"{job.arm.dataset} has {len(examples)} questions. Lower it."
        )
    shown = [with_examples(row, examples, count, f"{job.train.seed}/{row.user}") for row in job.conversations]
    return prompt_ids(tokenizer, shown)


def with_examples(row: Conversation, examples: dict[str, Conversation], count: int, seed: str) -> Messages:
    """A prompt with examples as its earlier turns, drawn by ``seed``; never the question itself."""
    others = [each for question, each in examples.items() if question != row.user]
    turns = [turn for each in random.Random(seed).sample(others, count) for turn in each.messages()[-2:]]
    own = row.messages()[:-1]
    system = 1 if row.system else 0
    return [*own[:system], *turns, *own[system:]]


@cache
def trainer_class() -> Any:
    """TRL's trainer, whose teacher reads ``longer_prompts`` instead of the student's, if there are any."""
    import torch
    from trl import DistillationTrainer

    class OnPolicyTrainer(DistillationTrainer):  # type: ignore[misc]  # trl has no types
        longer_prompts: dict[tuple[int, ...], list[int]]

        def _get_last_hidden_state(
            self, unwrapped_model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, **more: Any
        ) -> Any:
            teacher = self.accelerator.unwrap_model(self.teacher_model)
            if self.longer_prompts and unwrapped_model is teacher:
                input_ids, attention_mask = self._for_teacher(input_ids, attention_mask, logits_to_keep)
            return super()._get_last_hidden_state(unwrapped_model, input_ids, attention_mask, logits_to_keep, **more)

        def _for_teacher(self, input_ids: Any, attention_mask: Any, answer: int) -> tuple[Any, Any]:
            """The same answers after the teacher's prompts, padded on the left as the student's are."""
            begin = input_ids.size(1) - answer
            prompts = [
                self.longer_prompts[tuple(ids[mask.bool()].tolist())]
                for ids, mask in zip(input_ids[:, :begin], attention_mask[:, :begin], strict=True)
            ]
            width, pad = max(map(len, prompts)), self._tokenizer.pad_token_id
            ids = torch.tensor([[pad] * (width - len(each)) + each for each in prompts]).to(input_ids)
            mask = torch.tensor([[0] * (width - len(each)) + [1] * len(each) for each in prompts]).to(attention_mask)
            return (
                torch.cat([ids, input_ids[:, begin:]], dim=1),
                torch.cat([mask, attention_mask[:, begin:]], dim=1),
            )

    return OnPolicyTrainer
