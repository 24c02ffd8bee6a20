"""Rows of datasets as others publish them: from files, a hub or ModelScope, each with the place where it is."""
