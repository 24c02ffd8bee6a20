"""The files that lm-eval reads without a network: downloaded, brought into one form, laid out."""
