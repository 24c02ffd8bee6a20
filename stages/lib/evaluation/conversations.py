"""The held-out questions as a task of lm-eval that asks a question after the earlier turns of its conversation.

lm-eval's own tasks have one user turn for a question. A question with neither earlier turns nor a system text of its
own is asked as by lm-eval's own class, so its prompt and its hashes stay the same.
"""

from collections.abc import Callable
from typing import Any

from lm_eval.api.task import ConfigurableTask

from stages.lib.rows.question import Question


class ConversationTask(ConfigurableTask):  # type: ignore[misc]  # lm-eval has no types
    """A task whose documents are rows of ``data/heldout.jsonl``."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def fewshot_context(
        self,
        doc: dict[str, Any],
        num_fewshot: int,
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        fewshot_as_multiturn: bool = False,
        chat_template: Callable[..., Any] | None = None,
        gen_prefix: str | None = None,
    ) -> Any:
        """The prompt for a question; a question's own system text replaces that of the training.

        Without a chat template, the texts stand one below the other.
        """
        if not (doc.get("history") or doc.get("system")):
            how = system_instruction, apply_chat_template, fewshot_as_multiturn, chat_template, gen_prefix
            return super().fewshot_context(doc, num_fewshot, *how)
        row = Question.model_validate(doc)
        messages = row.messages(row.question)
        if system_instruction and not row.system:
            messages.insert(0, {"role": "system", "content": system_instruction})
        if apply_chat_template and chat_template:
            return chat_template(messages, add_generation_prompt=True)
        return "\n\n".join(message["content"] for message in messages)
