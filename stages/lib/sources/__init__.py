"""Where questions come from: one module a source, chosen by ``collect.source.kind``.

Each module offers ``candidates(params) -> Iterator[Question]`` (the training questions, in order) and
``heldout(params) -> Iterator[Question]`` (others, to evaluate on).
"""
