"""Deep Probability Estimation: names in print, and the predictions that Liu et al. 2022 published (arXiv:2111.10734)."""

import pickle
from typing import Any

import numpy as np

from uqlib.base.options import check_choice
from uqlib.images.sources import split_places

REPOSITORY = {
    "url": "https://github.com/jackzhu727/deep-probability-estimation",
    "folder": "published/deep-probability-estimation",
}
PUBLISHED = {"linear": "unif", "discrete": "discrete"}  # scenario, and its name in the files
REGIMES = {"fresh": "infinite", "cape_bin": "cape_bin", "early": "early_stop", "overfit": "overfit"}
NAMES = {
    "early": "early stopping", "fresh": "fresh coins", "overfit": "trained to the end", "cape_bin": "CaPE, groups",
    "cape_kernel": "CaPE, kernel", "one_group": "CaPE, one group", "continued": "more epochs",
    "temperature": "early stopping + temperature", "platt": "early stopping + Platt",
    "isotonic": "early stopping + isotonic", "cape_platt": "CaPE + Platt", "ensemble": "five networks",
    "mobilenetv1_025": "MobileNet 0.25", "cifar_resnet20": "ResNet-20", "linear": "Linear", "discrete": "Discrete",
    "skewed": "Skewed", "mse_p": "MSEₚ", "kl_p": "KLₚ", "brier_outcome": "Brier of the outcome", "nll": "NLL",
    "ece_mass": "ECE (equal mass)", "mce": "MCE (equal mass)", "ks": "KS", "auc": "AUC",
}  # fmt: skip
ARRAYS = {("numpy", name) for name in ("dtype", "ndarray", "_reconstruct")}  # all that a pickled array asks for


class _Plain(pickle.Unpickler):
    """Reads arrays and nothing else: a pickle of somebody else may run anything."""

    def find_class(self, module: str, name: str) -> Any:
        if (module.partition(".")[0], name) not in ARRAYS:
            raise ValueError(f"a file of arrays asks for {module}.{name}; it is not read")
        return super().find_class(module, name)


def read_published(scenario: str) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Probabilities by regime, true probabilities, and outcomes of the authors' test cases.

    Args:
        scenario: in PUBLISHED.

    Raises:
        FileNotFoundError: if there is no clone of their repository; the message has the command that makes one.
        ValueError: if a file holds anything but arrays.
    """
    theirs = PUBLISHED[check_choice(scenario, PUBLISHED, "scenario")]
    folders = [folder / REPOSITORY["folder"] for folder in split_places(None)]
    here = next((each for each in folders if each.is_dir()), None)
    if here is None:
        raise FileNotFoundError(f"{folders[0]} is not here: git clone {REPOSITORY['url']} {folders[0]}")
    files, said = here / "examples/UTKFace/result", {}
    for name, regime in REGIMES.items():
        with (files / f"{theirs}_{regime}_output_prob.p").open("rb") as file:
            about = _Plain(file).load()
        said[name] = about["val_targets_probs"]  # of test cases, in spite of the name
    return said, about["gt_labels"], about["labels"] > 0.5
