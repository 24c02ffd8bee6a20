"""The public benchmarks GSM8K, MGSM and MMLU: their rows, read from any form they come in, and laid down for lm-eval.

``rows`` and ``official`` serve the contamination check too; the rest serves ``eval_data`` alone.
"""
