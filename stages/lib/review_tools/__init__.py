"""A command that writes a person's verdict on an answer into data/reviews.jsonl."""
