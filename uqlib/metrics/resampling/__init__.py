"""Draws of examples with replacement: intervals of any statistic, and of the metrics without looking at each draw."""
