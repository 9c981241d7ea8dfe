"""Attacks: images moved a little so that a network errs, and trainings that see such images.

network = UnitImages(model, networks.preprocessing(model))      # a radius is in units of images in [0, 1]
robust_correct(network, images, labels, radius=8 / 255)         # PGD
strong_correct(network, images, labels, radius=8 / 255, classes=10, seed=0)   # parts of AutoAttack, slower
"""

from uqlib.attack.pgd import UnitImages, adversarial_step, pgd, robust_correct
from uqlib.attack.strong import PARTS, strong_correct

__all__ = ["PARTS", "UnitImages", "adversarial_step", "pgd", "robust_correct", "strong_correct"]
