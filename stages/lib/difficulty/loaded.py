"""Generate the untrained student's answers in this process: lm-eval's ``hf``, loaded as for the evaluation's base arm.

Each batch is in the store before the next one begins, so a killed run loses one batch. The seed of a batch depends on
``seed`` and on its requests, so a resumed run generates what an uninterrupted one would.
"""

import asyncio
import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from stages.lib.difficulty.calls import Settings
from stages.lib.evaluation import EvaluationError
from stages.lib.evaluation.backends import Asking, positions, refuse_lost_system_text, student_model
from stages.lib.evaluation.tasks import END_OF_TURN
from stages.lib.params import Evaluate, LoadedBackend, LoadedStudent, Run
from stages.lib.runtime.digests import files_hash
from stages.lib.store.answer_store import AnswerStore, request_key
from stages.lib.teacher.asking import Requests
from stages.lib.teacher.progress import Progress, RunCounts

Request = dict[str, Any]


class Loaded:
    """The untrained student in ``folder``; ``counts`` is correct at any time, however ``ask`` ends."""

    def __init__(
        self, backend: LoadedStudent, folder: Path, name: str, system: str | None, in_user_turn: bool, run: Run
    ) -> None:
        self._backend = backend
        self._asking = asking(folder, system, in_user_turn, backend, run)
        self._folder = folder
        self._name = name
        self.counts = RunCounts()

    @cached_property
    def settings(self) -> Settings:
        """What shapes an answer, as the store keeps it; ``endpoint`` is a hash of the student's files.

        Batch size, device and library versions are not in it: they change a sample, but not what it is a sample of.
        """
        shaping = self._backend.model_dump(include={"temperature", "top_p", "max_tokens", "dtype", "seed"})
        return {"endpoint": f"hf:{files_hash(self._folder)}", "model": self._name, **shaping}

    def ask(self, requests: Requests, store: AnswerStore) -> None:
        """Generate the answers that the store lacks."""
        asked = list(requests())
        missing = [request for request in asked if request_key(request) not in store]
        self.counts = RunCounts(total=len(asked), from_store=len(asked) - len(missing))
        if missing:
            refuse_too_long(self._asking)
            refuse_lost_system_text(self._asking)
            self._generate(missing, student_model(self._asking), store)

    def _generate(self, missing: list[Request], model: Any, store: AnswerStore) -> None:
        size = self._backend.batch_size
        progress = Progress("difficulty", self.counts, None, lambda: f"{size} at a time", size)
        try:
            for start in range(0, len(missing), size):
                batch = missing[start : start + size]
                bodies = generated(model, batch, self._backend)
                asyncio.run(put(store, batch, bodies))
                self.counts.bought += len(bodies)
                self.counts.tokens += sum(body["usage"]["completion_tokens"] for body in bodies)
                progress.update()
        finally:
            progress.close()


def asking(folder: Path, system: str | None, in_user_turn: bool, backend: LoadedStudent, run: Run) -> Asking:
    """The student as the evaluation's base arm, with the settings that loading and prompting need."""
    params = Evaluate(
        benchmarks=["heldout"],
        headline="verifier",
        backend=LoadedBackend(kind="hf", batch_size=backend.batch_size, dtype=backend.dtype, args={}),
        base_prompt="same_as_trained",
        chat_template=True,
        num_fewshot={},
        max_gen_toks=backend.max_tokens,
        limit=None,
        churn=None,
        seed=backend.seed,
    )
    return Asking("base", folder.resolve(), system, in_user_turn, None, None, params, run)


def refuse_too_long(student: Asking) -> None:
    """EvaluationError if the answers' limit leaves no tokens for a question."""
    context, limit = positions(student.weights), student.params.max_gen_toks
    if context is not None and limit >= context:
        raise EvaluationError(
            f"collect.keep_hard.backend.max_tokens: {limit}, but the student's context is {context} tokens. Lower it."
        )


def generated(model: Any, batch: list[Request], backend: LoadedStudent) -> list[dict[str, Any]]:
    """One sampled answer to each request, as the body of a chat completion."""
    from lm_eval.api.instance import Instance
    from transformers import set_seed

    sampling: dict[str, Any] = {"do_sample": backend.temperature > 0, "temperature": backend.temperature}
    if backend.top_p is not None and backend.temperature:
        sampling["top_p"] = backend.top_p
    arguments = {"until": [*END_OF_TURN], "max_gen_toks": backend.max_tokens, **sampling}
    prompts = [model.apply_chat_template(request["messages"]) for request in batch]
    instances = [Instance("generate_until", {}, (prompt, arguments), place) for place, prompt in enumerate(prompts)]
    set_seed(batch_seed(batch))
    texts = model.generate_until(instances, disable_tqdm=True)
    return [body(text, len(model.tok_encode(text)), backend.max_tokens) for text in texts]


def batch_seed(batch: list[Request]) -> int:
    """A seed from all requests of a batch, which include ``seed``."""
    keys = "".join(request_key(request) for request in batch)
    return int(hashlib.sha256(keys.encode()).hexdigest()[:8], 16)


def body(text: str, tokens: int, limit: int) -> dict[str, Any]:
    """An answer as a server would send it; the token that ends a turn counts, where the limit did not end it."""
    ended = tokens < limit
    message, reason = {"role": "assistant", "content": text}, "stop" if ended else "length"
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"choices": [choice], "usage": {"completion_tokens": tokens + ended}}


async def put(store: AnswerStore, batch: list[Request], bodies: list[dict[str, Any]]) -> None:
    """Store a batch with one fsync."""
    answers = zip(batch, bodies, strict=True)
    await asyncio.gather(*(store.put(request_key(request), request, orjson.dumps(body)) for request, body in answers))
