"""Normalise questions: two questions are duplicates if their normalised texts are equal."""


def normalised(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(text.casefold().split())
