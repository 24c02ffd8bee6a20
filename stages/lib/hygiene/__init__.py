"""Find questions that must not be in the training set: duplicates, and the benchmarks' questions."""
