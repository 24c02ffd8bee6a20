"""Asking the teacher: the client, the store of received answers, reading an answer, the backends."""
