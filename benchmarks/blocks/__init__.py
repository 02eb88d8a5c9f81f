"""Blocks of the documentation, by page: each renders stored results as Markdown. `tables.py` writes them."""
