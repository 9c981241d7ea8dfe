"""Short studies: papers that need no network of their own, only heads on frozen features, or what networks said.

A paper has one file here, NAME_runs.py, if its trainings take more than a minute; NAME_runs(scale) yields them, and
`uqlib short NAME` makes what data/trained/short lacks.
"""
