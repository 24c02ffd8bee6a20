"""Which questions are the same one: those whose normalised texts are equal."""


def normalised(text: str) -> str:
    """The text without differences of case and white space."""
    return " ".join(text.casefold().split())
