"""openMind's tokens: a chat template that gives its training prompts, the length of each row, and which rows fit."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.lib.chat_template import SEPARATOR
from stages.lib.tokens.length import FittingRows, fitting_rows
from stages.lib.training import Conversation, Job, TrainingError

TURN = ("<|im_start|>", "<|im_end|>")  # the template's own tokens
# openMind's template "qwen" with its own sentence; {system} or {before} is where our system text goes
_SENTENCE = "You are a helpful assistant."
_OURS = "messages[0]['role'] == 'system'"
_TEMPLATE = (
    "<|im_start|>system\n{system}<|im_end|>\n"
    "{% for message in messages %}{% if message['role'] != 'system' %}"
    "<|im_start|>{{ message['role'] }}\n{before}{{ message['content'] }}<|im_end|>\n"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Row:
    """A conversation and the lengths that openMind gives it, in tokens."""

    conversation: Conversation
    prompt_tokens: int
    answer_tokens: int  # including its end token

    @property
    def tokens(self) -> int:
        """Prompt and answer."""
        return self.prompt_tokens + self.answer_tokens

    def fits(self, cutoff_len: int) -> bool:
        """Whether openMind leaves it uncut. Its float division cuts some rows of exactly this length."""
        return self.tokens <= cutoff_len and int(cutoff_len * (self.answer_tokens / self.tokens)) >= self.answer_tokens


def chat_template(system_prompt: str) -> str:
    """The chat template (Jinja) that gives a prompt of evaluation the text of openMind's training prompts."""
    if system_prompt == "as_system":
        system = f"{{{{ messages[0]['content'] if {_OURS} else '{_SENTENCE}' }}}}"
        before = ""
    else:
        system = _SENTENCE
        before = f"{{% if loop.index0 == 1 and {_OURS} %}}{{{{ messages[0]['content'] }}}}{SEPARATOR}{{% endif %}}"
    return _TEMPLATE.replace("{system}", system).replace("{before}", before)


def check_turns(student: Path, tokenizer: Any) -> None:
    """TrainingError if the template's turn markers are not tokens of the student."""
    known = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    missing = [token for token in TURN if token not in known]
    if missing:
        raise TrainingError(
            f"{student}: its tokenizer has no token {missing[0]}, which openMind's template qwen writes around every "
            "turn. Choose another student, or train.trainer.kind: trl."
        )


def measured_rows(job: Job, tokenizer: Any) -> FittingRows:
    """The conversations that openMind leaves uncut, some of them shortened."""
    return fitting_rows(job, lambda conversations: _measured(job, conversations, tokenizer))


def _measured(job: Job, conversations: list[Conversation], tokenizer: Any) -> list[Row]:
    messages = [conversation.messages() for conversation in conversations]
    prompts = [tokenizer.apply_chat_template(m[:-1], add_generation_prompt=True, tokenize=False) for m in messages]
    texts = prompts + [conversation.assistant for conversation in conversations]
    tokens: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    check_tokens(job.student, texts, tokens)
    pairs = zip(tokens[: len(prompts)], tokens[len(prompts) :], strict=True)
    return [Row(each, len(p), len(a) + 1) for each, (p, a) in zip(conversations, pairs, strict=True)]


def check_tokens(student: Path, texts: list[str], tokens: list[list[int]]) -> None:
    """TrainingError if openMind's transformers would train on other tokens than evaluation will use.

    The older one follows tokenizer.json; transformers 5 overrides it for some model types.
    """
    from tokenizers import Tokenizer

    path = student / "tokenizer.json"
    if not path.is_file():
        return
    literal = Tokenizer.from_file(str(path)).encode_batch(texts, add_special_tokens=False)
    for text, ours, theirs in zip(texts, tokens, literal, strict=True):
        if ours != theirs.ids:
            raise TrainingError(
                f"{path}: openMind would train on {len(theirs.ids)} tokens, and evaluation would use {len(ours)} other "
                f"tokens, for {text[:40]!r}…. Use the student as published."
            )
