"""What a text is like, whoever wrote it: its language, and whether it repeats itself."""
