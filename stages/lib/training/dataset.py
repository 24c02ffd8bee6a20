"""Read the conversations of a dataset that ``convert`` wrote."""

from pathlib import Path

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from stages.lib.files.shards import check_part, parts_of
from stages.lib.params import Tags
from stages.lib.rows import DataError, read_json
from stages.lib.training import Conversation


class _Sample(BaseModel):
    """One ShareGPT sample: a system text, and turns of a user and an assistant."""

    system: str = ""
    conversations: list[dict[str, str]] = Field(min_length=2)


class _Entry(BaseModel):
    """A dataset's entry in dataset_info.json: how its turns are named."""

    tags: Tags


def read_dataset(folder: Path) -> list[Conversation]:
    """The conversations of a ShareGPT folder, in order."""
    advice = f"Run 'dvc repro convert@{folder.name}' to rebuild it."
    path = folder / f"{folder.name}.json"
    tags, found, first = None, list[Conversation](), 0
    files = parts_of(path, advice)
    for part, file in enumerate(files):
        samples = _read_samples(file, advice)
        first = first or len(samples)
        check_part(files, part, len(samples), first, advice)
        tags = tags or read_tags(folder, advice)
        found += [_conversation(sample, tags, f"{file}: sample {index}") for index, sample in enumerate(samples)]
    if not found:
        raise DataError(f"{path}: there is nothing in it. {advice}")
    return found


def _read_samples(path: Path, advice: str) -> list[_Sample]:
    try:
        return TypeAdapter(list[_Sample]).validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{path}: sample {where}: {first['msg']}. {advice}") from error


def read_tags(folder: Path, advice: str) -> Tags:
    """The tags of a dataset's turns, from its dataset_info.json."""
    path = folder / "dataset_info.json"
    try:
        return TypeAdapter(dict[str, _Entry]).validate_python(read_json(path, advice))[folder.name].tags
    except (KeyError, ValidationError) as error:
        raise DataError(f"{path}: no entry '{folder.name}' with its tags. {advice}") from error


def _conversation(sample: _Sample, tags: Tags, where: str) -> Conversation:
    speakers = [turn.get(tags.role_tag) for turn in sample.conversations]
    texts = [turn.get(tags.content_tag) or "" for turn in sample.conversations]
    if speakers != [tags.user_tag, tags.assistant_tag] * (len(texts) // 2) or not all(text.strip() for text in texts):
        raise DataError(f"{where}: not user turns and assistant turns in alternation, with text. Fix or remove it.")
    *history, (user, assistant) = zip(texts[::2], texts[1::2], strict=True)
    return Conversation(sample.system, user, assistant, tuple(history))
