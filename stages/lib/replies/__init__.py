"""Read what a server sends: an answer with its reasoning, finish reason and tokens, or an error and its meaning."""
