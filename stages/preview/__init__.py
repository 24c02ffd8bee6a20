"""Preview: a few questions through collect, distill, filter and convert, before the whole run is paid for.

It is no stage: it calls the stages' own functions, and DVC does not know it. It writes nothing but received answers,
which go to the store under the keys of the whole run, so that the whole run does not ask for them again.

    chain.py       the stages on a few questions
    estimate.py    what these questions say about the whole: requests, tokens, cost, time, training
    text.py        the text on the terminal
"""
