"""Data sets of the index benchmark; `python -m datasets.make_all` makes those that are missing."""
