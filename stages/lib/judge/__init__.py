"""Ask a model to mark an answer, and read its mark."""
