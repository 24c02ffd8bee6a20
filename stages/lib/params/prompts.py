"""The prompts that params name: ``stages/prompts/NAME.txt``, and a judge's, in ``judge/`` and ``pairwise/`` there; and
the lists of phrases, ``stages/phrases/NAME.txt``.

A name is in only one of the folders, so it is enough to find the text.
"""

from pathlib import Path

from stages.lib.params.base import ParamsError

PROMPTS = Path(__file__).resolve().parents[2] / "prompts"
PHRASES = Path(__file__).resolve().parents[2] / "phrases"
JUDGE = "judge"
PAIRWISE = "pairwise"  # a judge that compares two answers
FOLDERS = ("", JUDGE, PAIRWISE)
PAIRWISE_SLOTS = ("{question}", "{answer_a}", "{answer_b}")
RESPONSE = "{response}"  # the placeholder that only the prompts with a rubric have


def prompt_text(name: str) -> str:
    """The text of a prompt, exactly as in its file."""
    path = _file(name)
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: not UTF-8 (byte at {error.start}). Save the prompt as UTF-8.") from error


def slotted_prompt_text(key: str, name: str, what: str) -> str:
    """The text of a prompt with a placeholder for the ``what``; ``key`` is its key in params."""
    text = prompt_text(name)
    if "{question}" not in text:
        path = _file(name).relative_to(PROMPTS)
        raise ParamsError(
            f"params.yaml: {key}: stages/prompts/{path} has no placeholder for the {what}. "
            "Write {question} into it, or choose another prompt."
        )
    return text


def pairwise_prompt_text(key: str, name: str) -> str:
    """The text of a prompt that compares two answers; ``key`` is its key in params."""
    text = prompt_text(name)
    for slot in PAIRWISE_SLOTS:
        if text.count(slot) != 1:
            path = _file(name).relative_to(PROMPTS)
            raise ParamsError(
                f"params.yaml: {key}: stages/prompts/{path} has {slot} {text.count(slot)} times. "
                "Write it once, or choose another prompt."
            )
    return text


def phrases_named(name: str) -> list[str]:
    """The phrases of ``stages/phrases/NAME.txt``, one a line; empty lines and those that begin with # are left out."""
    lines = (PHRASES / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def phrase_lists() -> list[str]:
    """The names of the lists of phrases, sorted."""
    return sorted(file.stem for file in PHRASES.glob("*.txt"))


def prompt_names(folder: str = "") -> list[str]:
    """The names of a folder's prompts, sorted."""
    return sorted(file.stem for file in (PROMPTS / folder).glob("*.txt"))


def _file(name: str) -> Path:
    paths = [PROMPTS / folder / f"{name}.txt" for folder in FOLDERS]
    return next((path for path in paths if path.is_file()), paths[0])
