"""The types of a comparison of the arms, and its tables."""
