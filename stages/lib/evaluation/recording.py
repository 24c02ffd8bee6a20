# ruff: noqa: D102 - the methods are those of lm_eval.api.model.LM, which documents each
"""Wrap lm-eval's own model: cache each answer when it arrives, and record the complete text, including its thought.

lm-eval's ``think_end_token`` removes the thought before the text is returned. So the model here is created without it.
The cache and the record have complete texts. lm-eval gets each text as its own function shortens it, so its scores are
the same as without this class.

    RecordingLM(model, cached(model, cache, progress), think_end_token)
      └── CachingLM (lm-eval's): answers by request, in SQLite; in the second pass churn.py's choice of two
            └── CountingModel: progress
                  └── model (lm-eval's hf and vllm, served_model.py's local-completions, local-chat-completions)
"""

from pathlib import Path
from typing import Any

from lm_eval.api.model import LM, CacheHook, CachingLM
from lm_eval.models.utils import postprocess_generated_text

from stages.lib.chat_template import in_user_turn
from stages.lib.evaluation.bodies import Answer
from stages.lib.evaluation.progress import Progress
from stages.lib.evaluation.tasks import OWN


class CountingModel:
    """A model that reports its progress; everything else is delegated to the model."""

    def __init__(self, model: Any, progress: Progress) -> None:
        self._model = model
        self._progress = progress

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def set_cache_hook(self, hook: Any) -> None:
        self._model.set_cache_hook(_CountingHook(hook, self._progress))

    def generate_until(self, requests: list[Any]) -> list[str]:
        self._progress.begin(len(requests))
        answers: list[str] = self._model.generate_until(requests, disable_tqdm=self._progress.in_lines)
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        self._progress.begin(len(requests))
        answers: list[tuple[float, bool]] = self._model.loglikelihood(requests, disable_tqdm=self._progress.in_lines)
        return answers


class _CountingHook(CacheHook):  # type: ignore[misc]  # lm-eval has no types
    """Counts each answer that a model passes to the cache."""

    def __init__(self, hook: Any, progress: Progress) -> None:
        self.dbdict = hook.dbdict
        self._progress = progress

    def add_partial(self, attr: str, req: Any, res: Any) -> None:
        super().add_partial(attr, req, res)
        self._progress.count()


def as_answer(cached: str | tuple[Any, ...]) -> Answer:
    """An answer from its cached form: only the text, or, for a served model, the fields of an Answer."""
    return Answer(cached) if isinstance(cached, str) else Answer(*cached)


def cached(model: Any, cache: Path, progress: Progress) -> CachingLM:
    """The model with its cache, which a model fills as long as no other cache is made for it."""
    return CachingLM(CountingModel(model, progress), str(cache))


class RecordingLM(LM):  # type: ignore[misc]  # lm-eval has no types
    """The model for ``simple_evaluate``; ``answering`` is the same model with its cache.

    ``think_end_token`` None: complete texts are scored. ``in_user_turn``: put the system text before the first
    question.
    """

    def __init__(self, model: Any, answering: Any, think_end_token: str | None, in_user_turn: bool = False) -> None:
        super().__init__()
        self._model = model
        self._answering = answering
        self._think_end_token = think_end_token
        self._in_user_turn = in_user_turn
        self._answers: dict[tuple[str, int], Answer] = {}

    def generate_until(self, requests: list[Any]) -> list[str]:
        answers = [as_answer(each) for each in self._answering.generate_until(requests)]
        for request, answer in zip(requests, answers, strict=True):
            self._answers[request.task_name, request.doc_id] = answer
        return [self._scored(request.task_name, answer.text) for request, answer in zip(requests, answers, strict=True)]

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        answers: list[tuple[float, bool]] = self._answering.loglikelihood(requests)
        return answers

    def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
        answers: list[float] = self._answering.loglikelihood_rolling(requests)
        return answers

    def _scored(self, task: str, text: str) -> str:
        if self._think_end_token is None or task in OWN:  # our own verifier reads the markers
            return text
        scored: str = postprocess_generated_text(text, stop=None, think_end_token=self._think_end_token)
        return scored

    def answers(self) -> dict[tuple[str, int], Answer]:
        """The complete answers of all processes, by task and number; all processes must call this."""
        collected = self.gather_object(self._answers, dst=0) or []
        return {key: answer for answers in collected for key, answer in answers.items()}

    @property
    def rank(self) -> int:
        return int(self._model.rank)

    @property
    def world_size(self) -> int:
        return int(self._model.world_size)

    @property
    def device(self) -> Any:
        return self._model.device

    @property
    def tokenizer_name(self) -> str:
        return str(self._model.tokenizer_name)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> Any:
        turns = in_user_turn(chat_history) if self._in_user_turn else chat_history
        return self._model.apply_chat_template(turns, add_generation_prompt=add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        template: str | None = self._model.chat_template(chat_template)
        return template

    def all_gather(self, tensor: Any) -> Any:
        return self._model.all_gather(tensor)

    def gather_object(self, obj: Any, dst: int = 0) -> Any:
        return self._model.gather_object(obj, dst=dst)

    def barrier(self) -> None:
        self._model.barrier()
