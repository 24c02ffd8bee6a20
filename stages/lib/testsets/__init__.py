"""Read the rows of the public test sets GSM8K, MGSM and MMLU from the files that their authors publish."""
