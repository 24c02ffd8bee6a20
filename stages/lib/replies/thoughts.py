"""Split a text into the thought and the answer, where a server leaves the tags of the thought in the text.

    <think>1 + 1</think>2                     a block at the start; several consecutive blocks are one thought
    1 + 1</think>2                            the opening tag is part of the server's prompt
    </think>2, and a field with the thought   a stray tag: it closes nothing and is removed
    <think>1 + 1</think>2, and such a field   the thought a second time, or its other half

A tag within a sentence of the answer ("write </think> here") is part of the answer.
"""

import re
from dataclasses import dataclass

PAIRS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
ENDINGS = ("think>", "thinking>", "thought>", "reasoning>", "think]", "think▷", "thought|>")  # of all tags, lower case


@dataclass(frozen=True)
class _Tags:
    """The patterns of one pair of tags."""

    opening: re.Pattern[str]
    closing: re.Pattern[str]
    either: re.Pattern[str]
    at_line_end: re.Pattern[str]  # a closing tag with nothing after it on its line
    blocks: re.Pattern[str]  # whole blocks, anywhere
    blocks_at_line_begin: re.Pattern[str]

    @classmethod
    def of(cls, opening: str, closing: str) -> "_Tags":
        """The patterns of a pair."""
        begin, end = re.escape(opening), re.escape(closing)
        patterns = (
            rf"\s*{begin}",
            end,
            rf"({begin})|{end}",
            rf"{end}[ \t]*(?:\r?\n|\Z)",
            rf"{begin}(.*?){end}",
            rf"^[ \t]*{begin}(.*?){end}",
        )
        return cls(*(re.compile(pattern, re.IGNORECASE | re.DOTALL | re.MULTILINE) for pattern in patterns))


TAGS = tuple(_Tags.of(*pair) for pair in PAIRS)


def split_thought(named: str, content: str) -> tuple[str, str]:
    """Thought and answer of a message; ``named`` is the thought from a separate field, or empty."""
    if not (_may_have_tags(content) or _may_have_tags(named)):
        return named.strip(), content.strip()
    for tags in TAGS:
        if tags.either.search(named):
            named, content = _untagged(named, content, tags)
        if tags.either.search(content):
            named, content = _split(named, content, tags)
    return named.strip(), content.strip()


def _may_have_tags(text: str) -> bool:
    """Whether a text may have tags. Most texts have none, and this check is much faster than the patterns."""
    if not (">" in text or "]" in text or "▷" in text):
        return False
    text = text.lower()
    return any(end in text for end in ENDINGS)


def _untagged(named: str, content: str, tags: _Tags) -> tuple[str, str]:
    """Remove the tags from a field's thought; the text after its closing tag is the answer, where there is none."""
    opened = tags.opening.match(named)
    thought = named[opened.end() :] if opened else named
    closed = tags.closing.search(thought)
    if closed and not (content.strip() and thought[closed.end() :].strip()):
        return thought[: closed.start()], content if content.strip() else thought[closed.end() :]
    return thought, content


def _split(named: str, content: str, tags: _Tags) -> tuple[str, str]:
    thoughts: list[str] = []
    rest = _leading_blocks(content, tags, thoughts)
    closed = tags.closing.search(rest)
    if closed and not thoughts and not named.strip():  # the opening tag is in the prompt
        thoughts.append(rest[: closed.start()])
        rest = _leading_blocks(rest[closed.end() :], tags, thoughts)
    whole = tags.blocks if thoughts else tags.blocks_at_line_begin
    thoughts += [block[1] for block in whole.finditer(rest)]
    rest = _without_stray(whole.sub("", rest), tags, thoughts)
    return _merged(named, thoughts), rest


def _leading_blocks(text: str, tags: _Tags, thoughts: list[str]) -> str:
    """Move the blocks at the start to ``thoughts``; return the rest."""
    while (opened := tags.opening.match(text)) and (end := _block_end(text, opened.end(), tags)):
        thoughts.append(text[opened.end() : end[0]])
        text = text[end[1] :]
    return text


def _block_end(text: str, start: int, tags: _Tags) -> tuple[int, int] | None:
    """The span of a block's closing tag: the one that closes nested blocks too, else the first one."""
    depth, first = 1, None
    for tag in tags.either.finditer(text, start):
        depth += 1 if tag[1] else -1
        first = first or (None if tag[1] else tag.span())
        if not depth:
            return tag.span()
    return first


def _without_stray(rest: str, tags: _Tags, thoughts: list[str]) -> str:
    """Remove an unmatched closing tag at the start or the end; at the end of a line it ends the thought."""
    stray = tags.closing.match(rest.lstrip())
    if stray:
        return rest.lstrip()[stray.end() :]
    ended = tags.at_line_end.search(rest)
    if not ended:
        return rest
    before, after = rest[: ended.start()], rest[ended.end() :]
    if not after.strip():
        return before
    thoughts.append(before)
    return after


def _merged(named: str, thoughts: list[str]) -> str:
    """The thought of the field and that of the text: one of them where it contains the other, else both."""
    inline = "\n\n".join(thought.strip() for thought in thoughts if thought.strip())
    named = named.strip()
    if inline in named:
        return named
    return inline if named in inline else f"{named}\n\n{inline}"
