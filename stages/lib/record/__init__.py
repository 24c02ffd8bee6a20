"""The record of a run: what it cost here, params, prompts, versions, hashes, the commit, what would run again.

All this changes without any change in the results, so it is no part of the stage ``report``, whose page depends on its
inputs alone. ``make report`` puts it into a copy of the page, report/run.html, which DVC ignores.
"""
