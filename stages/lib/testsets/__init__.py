"""The public test sets GSM8K, MGSM and MMLU: their rows, read from the files that their authors publish."""
