"""Pretrained Visual Uncertainties: names in print, and the options of Kirchhof et al. 2024 (arXiv:2402.16569)."""

NAMES = {  # of the scores, in print
    "head": "head",
    "regression": "head, losses predicted",
    "entropy": "entropy",
    "max_probability": "max probability",
    "dropout": "MC dropout",
    "bagged": "bagged classifiers",
    "heteroscedastic": "learnt noise",
    "norm": "inverse norm",
    "distance": "distance",
    "target": "head of this set",
    "transferred": "head that never saw it",
    "target_entropy": "classifier of this set",
}
HEAD = {"width": 512, "layers": 2}  # of `uncertainty.UncertaintyHead`
# of `uncertainty.train_head`: sixteen micro-batches of 128 a step, 92 million views in all, the rate rising for 25 of 460 parts
TRAINING = {"batch": 2048, "weight_decay": 1e-4, "warmup": 25 / 460, "objective": "ranking"}
