"""Other ways to ask a teacher, for comparison with ours; each reads the questions and writes the answers at the end.

    python -m benchmarks.ways article --questions Q.jsonl --out OUT.jsonl --base-url http://127.0.0.1:8000/v1 \\
        --concurrency 30

``article``  threads, a new OpenAI client for every call, as the article's code has it
``threads``  the same threads with one client
``async``    AsyncOpenAI with its own defaults, on asyncio's loop
``raw``      aiohttp and uvloop, and nothing between: the limit of what Python can do here

A question whose call fails, after the client's own retries, has no line in OUT.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import click

from stages.lib.params import prompt_text


class Desk(NamedTuple):
    """Where questions are sent, how many at once, and the prompt around them."""

    base_url: str
    api_key: str
    concurrency: int
    prompt: str

    def request(self, question: str) -> dict[str, Any]:
        """The body of a call."""
        return {"model": "mock", "messages": [{"role": "user", "content": self.prompt.replace("{question}", question)}]}


Answer = tuple[str, str, str]  # question, reasoning, answer
Answers = list[Answer | None]


def article(desk: Desk, questions: list[str]) -> Answers:
    """A new client for every call."""
    return threaded(desk, questions, lambda: sync_client(desk))


def threads(desk: Desk, questions: list[str]) -> Answers:
    """One client for all threads."""
    client = sync_client(desk)
    return threaded(desk, questions, lambda: client)


def sync_client(desk: Desk) -> Any:
    """The SDK's client as it comes."""
    import openai

    return openai.OpenAI(api_key=desk.api_key, base_url=desk.base_url)


def threaded(desk: Desk, questions: list[str], client: Callable[[], Any]) -> Answers:
    """As many threads as calls at once; ``client`` gives each call its own."""
    import openai

    def generate(question: str) -> Answer | None:
        asking = client()
        try:
            return read(question, asking.chat.completions.create(**desk.request(question)))
        except openai.OpenAIError:
            return None

    with ThreadPoolExecutor(desk.concurrency) as pool:
        return list(pool.map(generate, questions))


def async_openai(desk: Desk, questions: list[str]) -> Answers:
    """The SDK's async client as it comes."""
    import openai

    async def ask_all() -> Answers:
        async with openai.AsyncOpenAI(api_key=desk.api_key, base_url=desk.base_url) as client:

            async def ask(question: str) -> Answer | None:
                try:
                    return read(question, await client.chat.completions.create(**desk.request(question)))
                except openai.OpenAIError:
                    return None

            return await shared_out(ask, questions, desk.concurrency)

    return asyncio.run(ask_all())


def raw(desk: Desk, questions: list[str]) -> Answers:
    """No client between: a POST, and the JSON that comes back."""
    import aiohttp
    import orjson
    import uvloop

    headers = {"Authorization": f"Bearer {desk.api_key}", "Content-Type": "application/json"}

    async def ask_all() -> Answers:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def ask(question: str) -> Answer | None:
                body = orjson.dumps(desk.request(question))
                async with session.post(f"{desk.base_url}/chat/completions", data=body) as response:
                    message = orjson.loads(await response.read())["choices"][0]["message"]
                return question, message["reasoning_content"], message["content"]

            return await shared_out(ask, questions, desk.concurrency)

    return uvloop.run(ask_all())


async def shared_out(ask: Callable[[str], Awaitable[Answer | None]], questions: list[str], concurrency: int) -> Answers:
    """So many workers share the questions."""
    answers: Answers = [None] * len(questions)
    waiting = iter(enumerate(questions))

    async def work() -> None:
        for place, question in waiting:
            answers[place] = await ask(question)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(work())
    return answers


def read(question: str, completion: Any) -> Answer:
    """What the article keeps of a completion."""
    message = completion.choices[0].message
    return question, message.reasoning_content, message.content


WAYS = {"article": article, "threads": threads, "async": async_openai, "raw": raw}


@click.command(help="Ask every question in one of the ways.")
@click.argument("way", type=click.Choice(list(WAYS)))
@click.option("--questions", "questions_path", type=click.Path(path_type=Path), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--base-url", required=True)
@click.option("--concurrency", type=int, required=True)
@click.option("--prompt", default="father", show_default=True, help="stages/prompts/NAME.txt")
def main(way: str, questions_path: Path, out: Path, base_url: str, concurrency: int, prompt: str) -> None:
    questions = [json.loads(line)["question"] for line in questions_path.read_text().splitlines()]
    desk = Desk(base_url, os.environ["API_KEY"], concurrency, prompt_text(prompt))
    answers = [answer for answer in WAYS[way](desk, questions) if answer]
    with out.open("w") as file:
        for question, reasoning, answer in answers:
            file.write(json.dumps({"question": question, "reasoning": reasoning, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
