"""The language that a text is written in, of the eleven that MGSM asks in.

language_of("Natalia hat im Mai 24 Haarspangen verkauft.")  → "de"
language_of("48 + 24 = 72")                                 → None: too little prose to tell
"""

LANGUAGES = ("bn", "de", "en", "es", "fr", "ja", "ru", "sw", "te", "th", "zh")


def language_of(text: str) -> str | None:
    """The language of a text's prose; "other" for a script of none of the eleven; None where it is too short to tell."""
    return None
