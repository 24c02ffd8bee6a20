"""Estimate a whole run before it is paid for: requests, tokens, cost, hours, disk, memory and cards of each stage.

units.yaml     what a question, a token, a card costs: low, mid, high, with the source of each
units.py       reading them; ranges
measured.py    the yields and lengths of a run, from its metrics
estimate.py    the arithmetic of the stages
"""
