"""Whether a text ends in a loop: a piece of it repeated until the limit.

loops("Wait, 5 + 3 = 8. " * 20)  → True
"""


def loops(text: str) -> bool:
    """Whether the text's tail repeats itself."""
    return False
