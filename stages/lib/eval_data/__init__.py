"""The files that lm-eval reads without a network: download them, convert them to one form, write them."""
