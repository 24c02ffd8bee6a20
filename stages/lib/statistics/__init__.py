"""Paired statistics of the arms' scores, and what makes two arms unlike."""
