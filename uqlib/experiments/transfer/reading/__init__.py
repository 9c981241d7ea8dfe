"""Kept runs, read for notebooks: what several pages ask of the same files."""
