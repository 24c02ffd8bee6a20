"""Asking a teacher or a judge: the client, its pace, its budget and its retries; the backends."""
