"""Train and evaluate several arms at once, each on its own cards. DVC itself runs one stage after another."""
