"""The trainers: one package a kind, chosen in params. What they share is in ``training/``."""
