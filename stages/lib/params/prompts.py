"""The prompts that params name: ``stages/prompts/NAME.txt``, and the judge's, ``stages/prompts/judge/NAME.txt``."""

from pathlib import Path

from stages.lib.params.base import ParamsError

PROMPTS = Path(__file__).resolve().parents[2] / "prompts"
JUDGE = "judge"  # the folder of the judge's


def prompt_text(name: str, folder: str = "") -> str:
    """The text of a prompt, as it stands in its file, to the byte."""
    path = PROMPTS / folder / f"{name}.txt"
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte at {error.start}). Save the prompt as UTF-8.") from error


def slotted_prompt_text(key: str, name: str, what: str, folder: str = "") -> str:
    """The text of a prompt that says where the ``what`` stands; ``key`` is where params name it."""
    text = prompt_text(name, folder)
    if "{question}" not in text:
        raise ParamsError(
            f"params.yaml: {key}: {shown(name, folder)} does not say where the {what} stands. "
            "Write {question} into it, or choose another prompt."
        )
    return text


def shown(name: str, folder: str) -> str:
    """``stages/prompts/judge/strict_teacher.txt``."""
    return "/".join(part for part in ("stages/prompts", folder, f"{name}.txt") if part)


def prompt_names(folder: str = "") -> list[str]:
    """All prompts of a folder, sorted."""
    return sorted(file.stem for file in (PROMPTS / folder).glob("*.txt"))
