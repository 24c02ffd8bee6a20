"""Paired statistics of the arms' scores, and warnings about confounders."""
