"""Ask a model through the batch API of its server: files of requests, answered within hours for less money.

journal     what was submitted, on the disk next to the store, so that a killed run loses and repeats nothing
api         the calls: upload, submit, look, download
lines       the files: a request a line, an answer a line
receiving   the lines of an ended batch into the store
worker      open batches: take one over, look at it, receive it
running     a run: fill batches, submit them, wait, receive, submit again what was not answered
beside      a run of single calls that needs what is in open batches
"""
