"""Learning Sample Difficulty: options of the baselines of Cui et al. 2023 (arXiv:2304.10127)."""

# What the losses had in Cui et al. 2023, by data set; `loss("focal", **LOSS_OPTIONS["cifar10"]["focal"])` is their baseline,
# where focal() is that of Lin et al. The trainings of data/trainings are held to it.
# Alpha: Cui et al. 2023, for ImageNet in table 5; their ER and Poly on CIFAR are not stated. Label smoothing, focal and
# L1: the code of Wang, Feng & Zhang 2021 ("Rethinking Calibration of Deep Neural Networks"), which the paper follows.
# Ranking: the code of Moon et al. 2020.
LOSS_OPTIONS: dict[str, dict[str, dict[str, float | bool]]] = {
    "cifar10": {
        "label_smoothing": {"epsilon": 0.05},
        "focal": {"gamma": 3.0, "detached": True},
        "l1_norm": {"strength": 0.05},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "cifar100": {
        "label_smoothing": {"epsilon": 0.09},
        "focal": {"gamma": 5.0, "detached": True},
        "l1_norm": {"strength": 0.01},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "imagenet": {"entropy": {"alpha": 0.1}, "difficulty": {"alpha": 0.2}},
}
