"""The probabilities that came with an answer, on the student's tokens: only where both split the text in the same way.

    Alignment(tokenizer, markers).scored(conversation, ids, first, tokens)
    → Scored, or why not: "text_differs", "tokens_differ"

A student's row has convert's markers around reasoning and response. A marker may share a token with the end of a text
(``.</``), so the first and last tokens of a text may be split differently. All others must be the same bytes; else the
teacher has another vocabulary, and nothing of the row is used. Cuts inside a character do not count: llama.cpp joins
the tokens of one (of an emoji, say), which then have no probabilities.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np

from stages.lib.logprobs import NO_TOKEN, Scored
from stages.lib.logprobs.answers import TokenLogprobs
from stages.lib.params import Markers

Reason = Literal["no_logprobs", "text_differs", "tokens_differ"]
Span = tuple[int, int]  # begin and end of a token, in bytes from the start of a text

EDGE = 2  # tokens of the teacher at each end of a text that a marker may change


@dataclass(frozen=True)
class Parts:
    """The texts of a teacher in a conversation's answer."""

    reasoning: str
    response: str


def parts_of(answer: str, markers: Markers) -> Parts | None:
    """The texts between convert's markers; None in an answer of another form."""
    begin, between = f"{markers.begin_of_thought}\n\n", f"{markers.end_of_thought}\n\n{markers.begin_of_solution}\n\n"
    if not answer.startswith(begin) or not answer.endswith(markers.end_of_solution):
        return None
    reasoning, found, response = answer.removeprefix(begin).removesuffix(markers.end_of_solution).partition(between)
    return Parts(reasoning, response) if found else None


def token_bytes(tokenizer: Any) -> dict[int, bytes]:
    """The bytes of each token: of byte-level BPE (GPT-2, Qwen, Llama 3) and of SentencePiece (``▁``, ``<0x0A>``)."""
    added = {number: str(token).encode() for number, token in tokenizer.added_tokens_decoder.items()}
    names = {number: name for name, number in tokenizer.get_vocab().items() if number not in added}
    byte_level = any(name.startswith("Ġ") for name in names.values())
    return {number: _byte_level(name) if byte_level else _pieces(name) for number, name in names.items()} | added


def _byte_level(name: str) -> bytes:
    """GPT-2's letters for bytes (openai/gpt-2, encoder.py): those that print stand for themselves."""
    return bytes(_BYTES[letter] for letter in name) if all(letter in _BYTES for letter in name) else name.encode()


def _letters() -> dict[str, int]:
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {chr(byte): byte for byte in printed} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTES = _letters()


def _pieces(name: str) -> bytes:
    if len(name) == len("<0x0A>") and name.startswith("<0x") and name.endswith(">"):
        return bytes([int(name[3:5], 16)])
    return name.replace("▁", " ").encode()


class Alignment:
    """The student's tokens by their bytes."""

    def __init__(self, tokenizer: Any, width: int) -> None:
        self._bytes = token_bytes(tokenizer)
        self._width = width
        special = set(tokenizer.added_tokens_decoder)
        self._ids: dict[bytes, int] = {}
        for number in sorted(self._bytes.keys() - special):
            self._ids.setdefault(self._bytes[number], number)

    def scored(self, parts: Parts, ids: list[int], first: int, tokens: list[TokenLogprobs]) -> Scored | Reason:
        """The probabilities at the places of ``ids`` from ``first`` on, where the answer's own tokens are."""
        student, teacher = (_joined(each) for each in (self._texts(ids[first:]), [each.token for each in tokens]))
        places: list[tuple[int, TokenLogprobs]] = []
        found = 0
        for begin, there, text in _starts(parts, student.text, teacher.text):
            found += 1
            pairs = matched(student.inside(begin, len(text)), teacher.inside(there, len(text)), text)
            if pairs is None:
                return "tokens_differ"
            places += [(first + one, tokens[other]) for one, other in pairs]
        if not found:
            return "text_differs"
        return self._scored(places) if places else "tokens_differ"

    def _texts(self, ids: list[int]) -> list[bytes]:
        return [self._bytes.get(number, b"") for number in ids]

    def _scored(self, places: list[tuple[int, TokenLogprobs]]) -> Scored:
        ids = np.full((len(places), self._width), NO_TOKEN, np.int32)
        logprobs = np.full((len(places), self._width), -np.inf, np.float32)
        for row, (_, token) in enumerate(places):
            # the token itself may not be among the likeliest
            known = dict(token.top) | {token.token: token.logprob}
            pairs = [(self._ids[text], logprob) for text, logprob in known.items() if text in self._ids]
            best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[: self._width]
            ids[row, : len(best)] = [number for number, _ in best]
            logprobs[row, : len(best)] = [logprob for _, logprob in best]
        return Scored(np.array([place for place, _ in places], np.int32), ids, logprobs)


@dataclass(frozen=True)
class _Joined:
    """A text and where its tokens end."""

    text: bytes
    ends: list[int]

    def inside(self, begin: int, length: int) -> list[tuple[int, Span]]:
        """The tokens that lie in a part of the text, with their number and their place in that part."""
        spans = enumerate(pairwise([0, *self.ends]))
        return [
            (number, (start - begin, end - begin))
            for number, (start, end) in spans
            if begin <= start < end <= begin + length
        ]


def _joined(tokens: list[bytes]) -> _Joined:
    return _Joined(b"".join(tokens), list(accumulate(map(len, tokens))))


def _starts(parts: Parts, student: bytes, teacher: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Where each of the texts begins in the student's and in the teacher's; nothing for one that is not in both."""
    reasoning, response = parts.reasoning.encode(), parts.response.encode()
    last = student.rfind(response), teacher.rfind(response)
    thought = student.find(reasoning), teacher.find(reasoning, 0, last[1] if last[1] >= 0 else len(teacher))
    for (one, other), text in ((thought, reasoning), (last, response)):
        if text and one >= 0 and other >= 0:
            yield one, other, text


def matched(
    student: list[tuple[int, Span]], teacher: list[tuple[int, Span]], text: bytes
) -> list[tuple[int, int]] | None:
    """The numbers of the tokens that are in both; None where the texts are split differently between their ends."""
    whole = [span for _, span in teacher]
    low = whole[min(EDGE, len(whole)) - 1][1] if whole else 0
    high = whole[-min(EDGE, len(whole))][0] if whole else 0
    cuts = [{end for _, span in each for end in span} for each in (student, teacher)]
    inner = [cut for cut in cuts[0] ^ cuts[1] if low < cut < high and not _inside_a_character(text, cut)]
    if inner:
        return None
    numbers = {span: number for number, span in teacher}
    return [(number, numbers[span]) for number, span in student if span in numbers]


def _inside_a_character(text: bytes, cut: int) -> bool:
    return cut < len(text) and text[cut] & 0xC0 == 0x80
