"""Convert pydantic's errors into one line that names the key as the file has it.

    distill.teacher.base_url: kind embedded does not read it; kind openai_compatible does. Remove the key, or …
    train.lerning_rate: unknown key. Did you mean 'learning_rate'?

pydantic puts the tag of the chosen member of a union between the keys of a location, as in ``('distill', 'teacher',
'embedded', 'model')``. A ``Place`` is a location without these tags, and the part of the schema at that location.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


@dataclass(frozen=True)
class Choice:
    """A tagged union: the key that chooses a member, and the members by that key's value."""

    discriminator: str
    members: dict[str, type[BaseModel]]


@dataclass(frozen=True)
class Place:
    """The keys to a location of the file, the schema at that location, and its choice and tag, if it is in one."""

    keys: tuple[str, ...]
    node: Any
    choice: Choice | None = None
    tag: str = ""

    @property
    def key(self) -> str:
        """``distill.teacher.model``."""
        return ".".join(self.keys)


def first_error(error: ValidationError, schema: type[BaseModel], raw: Any) -> str:
    """The most helpful of the errors, in one line; ``raw`` is the content of the file."""
    # a misspelled key is also a missing one: the unknown name is more helpful
    errors = sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
    if errors[0]["type"] == "missing":  # of a file of an older form, all that it lacks
        return _missing([place(each["loc"], schema, raw).key for each in errors if each["type"] == "missing"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return _line(errors[0], schema, raw) + more


def nearest(word: str, known: Sequence[str]) -> str:
    """`` Did you mean 'learning_rate'?``, or all known names."""
    return _close(word, known) or (f" Known: {', '.join(known)}." if known else "")


def place(location: Sequence[int | str], schema: type[BaseModel], raw: Any) -> Place:
    """The place for one of pydantic's locations."""
    found, data = Place((), schema), raw
    for part in location:
        node = _bare(found.node)
        if isinstance(node, Choice) and part in node.members:
            found = Place(found.keys, node.members[str(part)], node, str(part))
        elif part == "[key]" or (_is_open(node) and not _has(data, part)):  # the name of a type, not a key
            continue
        else:
            found = Place((*found.keys, str(part)), _inside(node, part))
            data = data[part] if _has(data, part) else None
    return found


def _line(error: ErrorDetails, schema: type[BaseModel], raw: Any) -> str:
    found = place(error["loc"], schema, raw)
    key = found.key
    choice = node if isinstance(node := _bare(found.node), Choice) else None
    if error["type"] == "extra_forbidden":
        return _unknown(found, place(error["loc"][:-1], schema, raw))
    if error["loc"][-1:] == ("[key]",):  # in a mapping whose keys the schema lists
        return _unknown(found, place(error["loc"][:-2], schema, raw))
    if error["type"] == "value_error":
        return f"{key}: {error['ctx']['error']}."
    if choice:
        return _invalid_choice(key, choice, error)
    return f"{key or 'the file'}: {error['msg']}, not {error['input']!r:.60}."


def _missing(keys: list[str]) -> str:
    return f"{', '.join(keys)}: missing. The file must have every value; 'git diff' shows what was removed."


def _invalid_choice(key: str, choice: Choice, error: ErrorDetails) -> str:
    """The error for a choice without a valid kind."""
    known = list(choice.members)
    if error["type"] == "union_tag_invalid":
        wrong = error["ctx"]["tag"]
        return f"{key}.{choice.discriminator}: '{wrong}' is not one of {', '.join(known)}.{_close(wrong, known)}"
    if error["type"] == "union_tag_not_found":
        return f"{key}.{choice.discriminator}: missing. It is one of {', '.join(known)}."
    wanted = f"{{{choice.discriminator}: {' | '.join(known)}, …}}"
    return f"{key}: Input should be a valid dictionary, {wanted}, not {error['input']!r:.60}."


def _unknown(found: Place, around: Place) -> str:
    """The error for an unknown key: one of another choice, or a misspelled one."""
    name = found.keys[-1]
    if around.choice:
        discriminator, others = around.choice.discriminator, around.choice.members
        readers = [tag for tag, member in others.items() if name in member.model_fields]
        if readers:
            *some, last = readers
            named = f"{', '.join(some)} or {last}" if some else last
            return (
                f"{found.key}: {discriminator} {around.tag} does not read it; {discriminator} {named} does. "
                f"Remove the key, or set {discriminator}: {named}."
            )
    return f"{found.key}: unknown key.{nearest(name, _known(around.node))}"


def _close(word: str, known: Sequence[str]) -> str:
    found = get_close_matches(word, known, n=1)
    return f" Did you mean '{found[0]}'?" if found else ""


def _known(node: Any) -> list[str]:
    """The keys that the schema has at a place."""
    node = _bare(node)
    if isinstance(node, type) and issubclass(node, BaseModel):
        return list(node.model_fields)
    names = get_args(node)[0] if get_origin(node) is dict else None
    return [name for name in get_args(names) if isinstance(name, str)]


def _inside(node: Any, part: int | str) -> Any:
    if isinstance(node, type) and issubclass(node, BaseModel):
        return node.model_fields.get(str(part))
    return get_args(node)[-1] if get_origin(node) in (dict, list) else None


def _bare(node: Any) -> Any:
    """The model, Choice, dict or list type inside Optional, Annotated and FieldInfo; None if there is none."""
    if isinstance(node, FieldInfo):
        discriminator, node = node.discriminator, node.annotation
        if isinstance(discriminator, str):
            return _choice(discriminator, node)
    if get_origin(node) is Annotated:
        inner, *metadata = get_args(node)
        named = [each.discriminator for each in metadata if isinstance(each, FieldInfo)]
        return _choice(named[0], inner) if named and isinstance(named[0], str) else _bare(inner)
    if get_origin(node) in (Union, UnionType):
        inner = [each for each in get_args(node) if each is not type(None)]
        return _bare(inner[0]) if len(inner) == 1 else node
    return node


def _choice(discriminator: str, union: Any) -> Choice:
    members = {str(tag): model for model in get_args(union) for tag in _tags(model, discriminator)}
    return Choice(discriminator, members)


def _tags(model: type[BaseModel], discriminator: str) -> tuple[Any, ...]:
    return get_args(model.model_fields[discriminator].annotation)


def _is_open(node: Any) -> bool:
    """Whether pydantic adds the names of the types that it tried: in a plain union, and in any JSON value."""
    is_model = isinstance(node, type) and issubclass(node, BaseModel)
    return not (is_model or isinstance(node, Choice) or get_origin(node) in (dict, list))


def _has(data: Any, part: int | str) -> bool:
    if isinstance(data, dict):
        return part in data
    return isinstance(data, list) and isinstance(part, int) and part < len(data)
