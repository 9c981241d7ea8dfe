"""Convex minima with a certificate, and the likelihood of weighted logits."""
