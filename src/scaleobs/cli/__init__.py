"""Forwards the console script of an older installation; to be deleted with `main.py`."""
