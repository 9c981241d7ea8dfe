"""Whole curves and their sizes: calibration without bins, bands around curves, how many examples a study needs."""
