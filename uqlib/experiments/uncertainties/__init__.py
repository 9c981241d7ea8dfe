"""Pretrained uncertainties on trial: what heads of several backbones say of sets that they have never seen."""
