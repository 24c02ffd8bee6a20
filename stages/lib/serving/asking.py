"""Ask a server questions with the OpenAI client, and compare its answers with ``hf``'s."""

from collections.abc import Iterator
from dataclasses import dataclass

from stages.lib.serving import ServingError
from stages.lib.serving.arms import Arm, Expected, prompt_tokens


@dataclass(frozen=True)
class Compared:
    """A server's answer beside ``hf``'s; ``prompt`` is its number of prompt tokens beside the evaluation's."""

    expected: Expected
    answer: str
    prompt: tuple[int | None, int | None]

    @property
    def is_same(self) -> bool:
        """Whether the texts are equal, white space at the ends aside."""
        return self.answer.strip() == self.expected.response.strip()

    def lines(self) -> Iterator[str]:
        """``heldout-0: same``, or both texts and the first word that differs."""
        ours, theirs = self.prompt
        if None not in self.prompt and ours != theirs:
            yield f"{self.expected.id}: the server's prompt has {ours} tokens, the evaluation's {theirs}"
        if self.is_same:
            yield f"{self.expected.id}: same: {shown(self.answer)}"
            return
        words = self.expected.response.split(), self.answer.split()
        place = next(
            (number for number, pair in enumerate(zip(*words, strict=False)) if pair[0] != pair[1]),
            min(map(len, words)),
        )
        yield f"{self.expected.id}: different from word {place + 1} on"
        yield f"  hf:     {shown(self.expected.response)}"
        yield f"  server: {shown(self.answer)}"


def shown(text: str) -> str:
    """A text in one line."""
    return " ".join(text.split())


def compared(arm: Arm, url: str, expected: list[Expected]) -> Iterator[Compared]:
    """Ask each question once, at temperature 0; ServingError if the server lists no such model or gives no answer."""
    from openai import DefaultHttpxClient, OpenAI, OpenAIError

    # without a proxy, as the evaluation asks its servers; a local server needs no key, but the client needs a word
    client = OpenAI(base_url=f"{url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False))
    try:
        names = [model.id for model in client.models.list()]
        if arm.name not in names:
            raise ServingError(f"{url}: no model '{arm.name}' there. It serves {', '.join(names) or 'none'}.")
        for each in expected:
            reply = client.chat.completions.create(
                model=arm.name,
                messages=each.messages,  # type: ignore[arg-type]  # a role is any text there
                temperature=0,
                max_tokens=arm.max_tokens,
            )
            counts = reply.usage.prompt_tokens if reply.usage else None, prompt_tokens(arm, each.prompt)
            yield Compared(each, reply.choices[0].message.content or "", counts)
    except OpenAIError as error:
        raise ServingError(f"{url}: {shown(str(error))}") from error
