"""Attacks: images moved a little so that a network errs, and trainings that see such images."""

from uqlib.attack.pgd import UnitImages, adversarial_step, pgd, robust_correct

__all__ = ["UnitImages", "adversarial_step", "pgd", "robust_correct"]
