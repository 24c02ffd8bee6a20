"""Asking a model to mark an answer, and reading its mark."""
