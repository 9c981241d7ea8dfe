"""What is one paper's alone: names in print, released rules, released metrics, options of its baselines."""

SCORES = {  # of a network's confidence, in print, in every chapter
    "max_probability": "largest probability",
    "max_logit": "largest logit",
    "neg_entropy": "entropy",
    "energy": "energy",
}
