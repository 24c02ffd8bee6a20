"""Traces that others published: a question, the reasoning and the response of a model, in the forms they publish."""
