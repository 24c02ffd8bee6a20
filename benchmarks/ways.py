"""Other ways to ask a teacher, to compare with ours. Each reads the questions and writes the answers at the end.

    python -m benchmarks.ways article --questions Q.jsonl --out OUT.jsonl --base-url http://127.0.0.1:8000/v1 \\
        --concurrency 30

``article``  threads, a new OpenAI client for every call, as in the article's code
``threads``  the same threads with one client
``async``    AsyncOpenAI with its own defaults, on asyncio's loop
``raw``      aiohttp and uvloop alone: the fastest that Python can do here

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


class ClientSettings(NamedTuple):
    """Where questions are sent, how many are in flight, and their prompt."""

    base_url: str
    api_key: str
    concurrency: int
    prompt: str

    def request(self, question: str) -> dict[str, Any]:
        """The body of a call."""
        return {"model": "mock", "messages": [{"role": "user", "content": self.prompt.replace("{question}", question)}]}


Answer = tuple[str, str, str]  # question, reasoning, answer
Answers = list[Answer | None]


def article(settings: ClientSettings, questions: list[str]) -> Answers:
    """A new client for every call."""
    return threaded(settings, questions, lambda: sync_client(settings))


def threads(settings: ClientSettings, questions: list[str]) -> Answers:
    """One client for all threads."""
    client = sync_client(settings)
    return threaded(settings, questions, lambda: client)


def sync_client(settings: ClientSettings) -> Any:
    """The SDK's client with its defaults."""
    import openai

    return openai.OpenAI(api_key=settings.api_key, base_url=settings.base_url)


def threaded(settings: ClientSettings, questions: list[str], client: Callable[[], Any]) -> Answers:
    """Ask with one thread per call in flight; ``client`` returns the client of each call."""
    import openai

    def generate(question: str) -> Answer | None:
        openai_client = client()
        try:
            return read(question, openai_client.chat.completions.create(**settings.request(question)))
        except openai.OpenAIError:
            return None

    with ThreadPoolExecutor(settings.concurrency) as pool:
        return list(pool.map(generate, questions))


def async_openai(settings: ClientSettings, questions: list[str]) -> Answers:
    """The SDK's async client with its defaults."""
    import openai

    async def ask_all() -> Answers:
        async with openai.AsyncOpenAI(api_key=settings.api_key, base_url=settings.base_url) as client:

            async def ask(question: str) -> Answer | None:
                try:
                    return read(question, await client.chat.completions.create(**settings.request(question)))
                except openai.OpenAIError:
                    return None

            return await ask_with_workers(ask, questions, settings.concurrency)

    return asyncio.run(ask_all())


def raw(settings: ClientSettings, questions: list[str]) -> Answers:
    """No client library: a POST, and its JSON response."""
    import aiohttp
    import orjson
    import uvloop

    headers = {"Authorization": f"Bearer {settings.api_key}", "Content-Type": "application/json"}

    async def ask_all() -> Answers:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers) as session:

            async def ask(question: str) -> Answer | None:
                body = orjson.dumps(settings.request(question))
                async with session.post(f"{settings.base_url}/chat/completions", data=body) as response:
                    message = orjson.loads(await response.read())["choices"][0]["message"]
                return question, message["reasoning_content"], message["content"]

            return await ask_with_workers(ask, questions, settings.concurrency)

    return uvloop.run(ask_all())


async def ask_with_workers(
    ask: Callable[[str], Awaitable[Answer | None]], questions: list[str], concurrency: int
) -> Answers:
    """Ask all questions with ``concurrency`` workers."""
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
    """The parts of a completion that the article keeps."""
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
    settings = ClientSettings(base_url, os.environ["API_KEY"], concurrency, prompt_text(prompt))
    answers = [answer for answer in WAYS[way](settings, questions) if answer]
    with out.open("w") as file:
        for question, reasoning, answer in answers:
            file.write(json.dumps({"question": question, "reasoning": reasoning, "answer": answer}) + "\n")


if __name__ == "__main__":
    main()
