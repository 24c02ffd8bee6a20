"""Ask a teacher or a judge: the client, its rate, its budget and its retries; the backends."""
