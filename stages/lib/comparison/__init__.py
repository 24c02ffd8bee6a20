"""What a comparison of the arms holds, and the tables made of it."""
