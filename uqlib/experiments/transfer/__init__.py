"""Pretraining on trial: networks that the project pretrains, and what became of the trainings that start from them."""
