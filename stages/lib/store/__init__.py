"""The store of received answers: append-only, read while others write, each request claimed by one process."""
