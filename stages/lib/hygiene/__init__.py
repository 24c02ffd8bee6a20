"""Keeping questions out of the training set: those that stand there already, and those of the benchmarks."""
