"""What a server sends: an answer, its thought, its end and its tokens, or an error and what it means."""
