"""Every public function meets every kind of input: the answer is that of the plain input, or an error that names it.

The walk finds the functions by itself. An argument that is an array gets its good value from ARRAYS by its name, other
arguments from OTHERS by name or from MADE by type; each array in turn is then given as every kind of KINDS, and each
number as every kind of NUMBERS. A function whose arguments have no such names fails until they get one here.
"""

import importlib
import inspect
import itertools
import math
import pkgutil
import re
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatch
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import default_dtype
from jaxtyping import AbstractArray
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import nn

import uqlib
from uqlib import difficulty, losses, metrics, networks, store, training, uncertainty
from uqlib.base.checks import check_logits
from uqlib.bayes import laplace
from uqlib.calibrate import meta
from uqlib.combine import duos, dynamic
from uqlib.heads import HEADS, FeatureSums, KeyBook, feature_sums, fit_keys
from uqlib.images import INTERVENTIONS, Images, corruptions, noise_sets
from uqlib.networks import linear_heads
from uqlib.store import Key

# functions that still give a wrong answer or another error on some kind
WAITING: set[str] = set()

# What has no walk, and why: its arguments come from the library, not from a user, or its own tests walk it.
INNER = "takes what the library has checked"
EXCEPTIONS = {
    "base.arrays.*": "what the checks are made of, in test_arrays.py",
    "base.checks.*": "the checks themselves, in test_arrays.py",
    "base.options.*": "the checks themselves, in test_arrays.py",
    "base.exact.*": INNER,
    "judge.streams.*": "of batches that update has named, in test_streams.py",
    "judge.scoring.*": "of what scikit-learn hands over, in test_estimators.py",
    "cli.*": "commands, of what argparse has read",
    "commands.*": "commands, of what argparse has read",
    "experiments.*": "makes and reads what the data files ask for",
    "images.sets.pixels_digest": "a digest, of what load and write_prepared have checked",
    "combine.duos.refuse_constant": INNER,
    "combine.ensembles.repeat_ensembles": "takes the store's answers, in test_ensembles.py",
    "report.advice.*": "takes what the synthesis found, in test_advice.py",
    "papers.zhou2025.rescore_zhou2025": "takes outcomes of the library",
    "losses.criterion.entropy_of": INNER,
    "networks.outputs.*": "takes what preprocess returns, a tensor on the network's device",
    "losses.criterion.surprise": INNER,
    "images.photos.*": "inner: the images of corrupt, preprocess and write_prepared, which are walked",
    "files.fingerprint.*": "of any value, in test_fingerprint.py",
    "solve.*": INNER,
    "difficulty.statistics.joined_means": INNER,
    **{f"difficulty.gaussians.{name}": INNER for name in ("cholesky_of", "oas_covariance", "shrink_covariance")},
    "metrics.resampling.repetitions.*": "of arrays with names, in test_repetitions.py",
    "calibrate.maps.*": INNER,
    "metrics.selective.risks_in_row_order": INNER,
    "metrics.selective.last_of_ties": INNER,
    "images.sequences.*": "inner: the images of corrupt, preprocess and write_prepared, which are walked",
    "metrics.*_from_counts": INNER,
    "metrics.ranking.kind_of": INNER,
    **{f"metrics.bins.{name}": INNER for name in ("as_bins", "chunk_of", "place_by_width")},
    **{f"metrics.ranking.{name}": INNER for name in ("least", "slack", "ranked", "refuse_scaled")},
    **{f"metrics.resampling.{name}": INNER for name in ("bootstrap.percentiles", "draws.evaluators", "ends.*")},
    **{f"metrics.rows.{name}": INNER for name in ("rows_that_count", "kept_rows", "numbered")},
    "metrics.curves.isotonic.curve_of": INNER,
    "networks.zoo.*": INNER,
    "metrics.compare.*": "of arrays with names and of outcomes, in test_compare.py",
    "metrics.multiverse.*": "of arrays with names and of outcomes, in test_multiverse.py",
    "papers.cui2023.logged": "of trainings of the library, in test_cui2023.py",
    "papers.cui2023.ece_recalibrated": "makes a measure, in test_cui2023.py",
    "papers.cui2023.compare_by_class": "of outcomes of the library, in test_cui2023.py",
    "store.coarse.*": "of logits that put_answers has checked, in test_coarse.py",
    "training.stacked.*": "of features and weights of the library, in test_stacked.py",
    "evidence.*": "of results that records have checked, in tests/evidence",
    "metrics.outcomes.*": INNER,
    **{
        f"report.{name}.*": "of cells that compare made, in tests/report"
        for name in ("charts", "computed", "moving", "tables", "telling", "verbs")
    },
    **{
        f"report.cards.reliability.{name}": "of cards, in test_reliability.py"
        for name in ("reliability_card", "show_card", "record_card")
    },
    "report.lessons.*": "figures of the library's own answers, in test_lessons.py",
    "book.pages.*": INNER,
    "book.staleness.*": "of names of notebooks, in test_staleness.py",
    "book.build.html": "builds the book, in test_build.py",
    "bayes.laplace.find_last_layer": INNER,
    "combine.dynamic.decide_rows": INNER,
    "combine.cascades.operating_threshold": "takes one of two numbers, in test_cascades.py",
    "images.labels.disputed": "of the votes and labels that the library loads, in test_data.py",
    "images.labels.mislabel": "of the labels of an image set, in test_data.py",
    "networks.inputs.grey_pixels": "of an image set, in test_inputs.py",
    "papers.cui2023.extremes": "makes measures, in test_cui2023.py",
    "papers.cui2023.hardest_less_all": "makes a measure, in test_cui2023.py",
    "papers.zhou2025.fit_duo_as_released": "the arguments of fit_duo_zhou2025, which is walked",
    "papers.zhou2025.fit_duo_by_brier": "the arguments of fit_duo, which is walked",
    "report.plots.adapted": "of the text that matplotlib writes, in test_plots.py",
    "report.plots.fit": "of figures, in test_plots.py",
    "report.plots.name_ends": "of points that are drawn, in test_plots.py",
    "report.plots.narrow": "of figures, in test_plots.py",
    "report.reruns.*": "of records, in test_reruns.py",
    "store.fill.fill_entry": "needs a network and hours; its kinds are those of put_answers",
    "store.write.*": INNER,
    "images.corruptions.stacks.*": INNER,
    "papers.cui2023.constant_of_equal_strength": "of arrays with names, in test_cui2023.py",
    "papers.cui2023.error_by_group": INNER,
    "papers.cui2023.agreement": INNER,
    "papers.amininaieni2024.*": "of tasks of the library, in test_amininaieni2024.py",
    "papers.xia2023.*": "of answers and scores of the library, in test_xia2023.py",
    "papers.cui2023.easiest_and_hardest": INNER,
    "combine.repeat.decide_again": INNER,
    "papers.zhou2025.gain_by_agreement": "of outcomes, in test_zhou2025.py",
    "papers.traeuble2023.*": "a toy of the library, in test_traeuble2023.py",
    "papers.zhou2025.mean_way": "of an array of compare, in test_zhou2025.py",
    "papers.cui2023.resampled_medians": INNER,
    "papers.cui2023.accuracy_left": "makes a measure, whose numbers are in test_cui2023.py",
    "networks.timing.*": "measures; its numbers are in test_timing.py",
    "images.crops.random_crops": "of an image set, in test_crops.py",
    "uncertainty.objectives.*": "of tensors within a step, in test_objectives.py",
    "uncertainty.pretraining.source_adamw": INNER,
    "uncertainty.pretraining.joint_step": "makes a step, in test_pretraining.py",
    "uncertainty.wrapped.answer": "takes what preprocess returns, a tensor on the network's device",
    "attack.pgd.adversarial_step": "makes a step, in test_pgd.py",
    "attack.pgd.check_*": "the checks of attacks, in test_pgd.py",
    "training.loops.loop": "takes a step, which has no kinds; its numbers are in test_settings.py",
    **{
        f"{f.__module__}.{f.__name__}".removeprefix("uqlib."): INNER
        for f in (
            *corruptions.CORRUPTIONS.values(),
            *INTERVENTIONS.values(),
            *noise_sets.NOISE_SETS.values(),
            *training.OPTIMIZERS.values(),
            *training.AUGMENTATIONS.values(),
            *training.SCHEDULES.values(),
        )
        if inspect.isfunction(f)
    },
}

# Good values. Eighths and powers of two are the same in every precision.

N, C, D, M = 48, 4, 3, 3
RNG = np.random.default_rng(0)


def _eighths(*shape: int, spread: float = 2.0) -> np.ndarray:
    return np.round(8 * spread * RNG.standard_normal(shape)) / 8


LABELS = np.arange(N) % C
FEATURES = _eighths(N, D) + np.eye(C, D)[LABELS]
LOGITS = _eighths(N, C) + 2 * np.eye(C)[LABELS]
TABLE = np.where(RNG.random((N, 1)) < 0.7, np.eye(C)[RNG.integers(0, C, N)], 0.25)
PROBS = 0.5 * TABLE + 0.125  # rows of eighths, which sum to 1
CORRECT = RNG.random(N) < 0.6
CONFIDENCE = RNG.integers(1, 128, N) / 128
IMAGES = RNG.integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)

ARRAYS: dict[str, np.ndarray] = {
    "logits": LOGITS,
    "large": LOGITS,
    "small": _eighths(N, C) + 2 * np.eye(C)[LABELS],
    "large_logits": LOGITS,
    "small_logits": _eighths(N, C) + 2 * np.eye(C)[LABELS],
    "member_logits": np.stack([_eighths(N, C) + np.eye(C)[LABELS] for _ in range(M)]),
    "probs": PROBS,
    "labels": LABELS,
    "preds": RNG.integers(0, C, N),
    "large_preds": RNG.integers(0, C, N),
    "confidence": CONFIDENCE,
    "confidence_in": CONFIDENCE,
    "confidence_out": RNG.integers(1, 128, N) / 256,
    "correct": CORRECT,
    "mask": CORRECT,
    "positive": CORRECT,
    "wrong": ~CORRECT,
    "score": _eighths(N),
    "stratify": np.arange(N) % 2 / 2,
    "difficulty": RNG.integers(1, 999, N) / 8,
    "weights": RNG.integers(1, 128, N) / 128,
    "features": FEATURES,
    "large_features": FEATURES,
    "small_features": _eighths(N, 2),
    "weight": _eighths(C, D, spread=0.5),
    "bias": _eighths(C, spread=0.5),
    "risks": np.sort(RNG.integers(0, 64, N) / 128),
    "array": LOGITS,
    "values": np.array([0.5, 1.0, 4.0]),
    "images": IMAGES,
    "image": IMAGES[0],
    "uncertainty": CONFIDENCE,
    "found": CORRECT,
    "losses": RNG.integers(1, 128, N) / 64,
    "database": _eighths(20, D),
    "known": _eighths(20, D),
    "asked": _eighths(20, D),
    "transition": 0.5 * np.eye(C) + 0.125,
    "estimated": 0.5 * np.eye(C) + 0.125,
    "true": 0.25 * np.eye(C) + 0.1875,
    "trusted": CORRECT,
    "class_weights": np.array([0.5, 1.0, 1.0, 1.5]),
    "sizes": np.array([9, 6, 3, 2]),
    "scores": CONFIDENCE,
    "truth": CONFIDENCE,
    "outcomes": CORRECT,
    "codes": np.stack([np.arange(N) % 5, np.arange(N) // 5 % 5], 1),
    "tested": LABELS[:20],
    "pits": CONFIDENCE,
    "grid": np.array([0.0, 0.25, 0.5, 1.0]),
    "curves": LOGITS,
}


class Fresh:
    """A value that is made anew for each call, such as a network that a call changes."""

    def __init__(self, make: Callable[[], Any]):
        self.make = make


def tiny() -> nn.Module:
    """A network of four classes on small images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, C, dtype=torch.float32))
    network.num_classes, network.num_features = C, 12
    network.get_classifier = lambda: network[2]
    return network


FOLDER = tempfile.TemporaryDirectory()
PLACES = itertools.count()

# Every other argument, by its name: a value that is cheap, and a number that every float type holds.
OTHERS: dict[str, Any] = {
    "bins": 5,
    "draws": 20,
    "groups": 2,
    "level": 0.75,
    "risk": 0.25,
    "coverage": 0.75,
    "accuracy": 0.75,
    "recall": 0.75,
    "tpr": 0.75,
    "beta": 8,
    "classes": C,
    "statistic": metrics.aurc,
    "iterations": 3,
    "folds": 2,
    "steps": 2,
    "taus": (0.5, 1.0, 2.0),
    "strengths": (0.5, 1.0),
    "fit_size": 24,
    "splits": 2,
    "n": 6,
    "size": 8,
    "first": 2,
    "seed": 1,
    "held_out": 0.25,
    "clusters": 2,
    "dimensions": D,
    "examples": N,
    "least": 2,
    "most": 9,
    "severity": 3,
    "prior_precision": 2.0,
    "total": 2 * N,
    "ridge": 0.5,
    "epsilon": 0.25,
    "gamma": 2.0,
    "strength": 0.5,
    "alpha": 0.5,
    "temperature": 2.0,
    "c": 0.125,
    "l2": 0.125,
    "small_macs": 1.0,
    "large_macs": 4.0,
    "rows": None,
    "name": None,
    "generator": None,
    "value": 3.0,
    "ax": Fresh(lambda: Figure().add_subplot()),
    "label": "x",
    "cost": [1.0, 2.0],
    "count": 4,
    "shift": 0.5,
    "folder": Fresh(lambda: f"{FOLDER.name}/{next(PLACES)}"),
    "root": Fresh(lambda: f"{FOLDER.name}/{next(PLACES)}"),
    "split": "test",
    "progress": False,
    "epochs": 1,
    "lr": 0.125,
    "weight_decay": 0.5,
    "warmup": 0.5,
    "batch": 3,
    "k": 2,
    "p": 0.25,
    "samples": 3,
    "members": 2,
    "base": 0.5,
    "largest": 9,
    "smallest": 2,
    "neighbours": 1,
    "codebooks": 2,
    "keys": 5,
    "width": 2,
    "decay": 0.5,
    "rate": 0.5,
    "smoothing": 0.125,
    "prior": 0.5,
    "share": 0.25,
    "points": 9,
    "components": 2,
}

MADE: dict[type, Callable[[], Any]] = {
    networks.Preprocessing: lambda: networks.Preprocessing(size=8, mean=(0.5,) * 3, std=(0.25,) * 3),
    duos.DuoFit: lambda: duos.fit_duo(LOGITS, ARRAYS["small"], LABELS),
    difficulty.Moments: lambda: difficulty.moments(FEATURES, LABELS, classes=C),
    difficulty.Gaussians: lambda: difficulty.fit_gaussians(difficulty.moments(FEATURES, LABELS, classes=C)),
    dynamic.DynamicFit: lambda: dynamic.fit_dynamic_duo(
        *(ARRAYS[name] for name in ("large", "small", "large_features", "small_features", "labels")), iterations=2
    ),
    KeyBook: lambda: fit_keys(FEATURES, codebooks=2, keys=5, width=2, epochs=1, seed=0),
    FeatureSums: lambda: feature_sums(FEATURES, LABELS, classes=C),
    meta.Family: lambda: meta.fit_family(ARRAYS["curves"], components=2),
    meta.MetaFit: lambda: meta.fit_meta(ARRAYS["curves"], FEATURES, components=2),
    linear_heads.Head: lambda: linear_heads.fit_head(FEATURES, LABELS, iterations=5),
    nn.Module: lambda: Fresh(tiny),
    Key: lambda: Key("data", "test", "network", "0" * 16, "size=8", "0" * 16),
    uncertainty.UncertaintyHead: lambda: Fresh(lambda: uncertainty.UncertaintyHead(D, width=4)),
    uncertainty.Heteroscedastic: lambda: uncertainty.fit_heteroscedastic(
        FEATURES, LABELS, linear_heads.fit_head(FEATURES, LABELS, iterations=5), epochs=1, samples=2
    ),
    laplace.LaplaceFit: lambda: laplace.last_layer_laplace(FEATURES, LABELS, ARRAYS["weight"], ARRAYS["bias"]),
}

# Images as an attack takes them
UNIT = {
    "network": Fresh(tiny),
    "images": RNG.integers(0, 9, (6, 3, 8, 8)) / 8,
    "labels": np.arange(6) % C,
    "attack": {"steps": 2},
}

# What the names alone don't say, for one function.
BY_FUNCTION: dict[str, dict[str, Any]] = {
    "judge.translate": {"metric": "ECE", "of": "torchmetrics"},
    "judge.convert": {"value": 0.25, "metric": "AURC", "of": "torch-uncertainty", "n": 8, "error": 0.25, "first": 1},
    "attack.pgd": UNIT,
    "attack.robust_correct": UNIT,
    "attack.strong_correct": UNIT | {"radius": 0.125},
    "losses.cape_targets": {"by": "kernel", "width": 0.125},
    "label_noise.outcome_probabilities": {"scenario": "linear"},
    **{
        f"heads.{name}": {"counts": np.array([[3, 0, 2, 1, 1], [1, 2, 3, 4, 5]])}
        for name in ("key_codes", "key_distance")
    },
    "heads.fit_values": {"values": _eighths(2, 5, C)},
    "heads.value_logits": {"values": _eighths(2, 5, C)},
    "heads.run_stream": {
        "learn": lambda before, rows: rows,
        "answer": lambda rows: 4.0 * np.eye(C)[LABELS[:20]] - np.arange(C) / 8,
        "order": [2, 0, 1, 3],
        "each": 2,
    },
    "heads.stream_forgetting": {"accuracy": np.array([[0.5, 0.25], [0.0, 0.75]])},
    "heads.stream_plasticity": {"accuracy": np.array([[0.5, 0.25], [0.0, 0.75]])},
    "papers.gaussian_design": {"dim": 4, "rows": 12},
    "papers.bayes_error": {"classes": 3, "dim": 4},
    "heads.samples_to": {"sizes": np.array([1.0, 2.0, 8.0]), "errors": _eighths(4, 3), "level": 0.5},
    "heads.crossing": {"sizes": np.array([1.0, 2.0, 8.0]), "first": _eighths(4, 3), "second": _eighths(4, 3)},
    "heads.learning_curve": {
        "sizes": np.array([2, 4]),
        "test_features": FEATURES[:20],
        "test_labels": LABELS[:20],
        "heads": {"nearest": HEADS["nearest class mean"]},
    },
    "difficulty.forgetting": {"correct": RNG.random((4, N)) < 0.5},
    "difficulty.moments_of": {"batches": [(FEATURES[:20], LABELS[:20]), (FEATURES[20:], LABELS[20:])]},
    "calibrate.logits_by_curve": {"curve": np.array([0.0, 0.125, 0.5, 0.75])},
    "calibrate.map_by_curve": {"values": CONFIDENCE, "curve": np.array([0.0, 0.125, 0.5, 0.75])},
    "combine.decide": {"name": "ours"},
    "combine.cascade": {"windows": [(0.25, 0.75)] * (M - 1)},
    "combine.staged": {"stages": 1 + np.arange(N) % M},
    "combine.mean_cost": {"stages": 1 + np.arange(N) % M, "costs": np.array([1.0, 2.0, 4.0]), "weights": np.ones(N)},
    "combine.window_around": {"threshold": 0.5},
    "calibrate.fit_calibrator": {"name": "vector"},
    "calibrate.cross_calibrate": {"name": "vector", "cluster": np.arange(N) // 2, "options": {"strength": 0.5}},
    "calibrate.fit_prediction_sets": {"groups": np.arange(N) % 2},
    "calibrate.set_summary": {"sets": PROBS > 0.2},
    "calibrate.platt_scale": {"others": RNG.integers(1, 128, N) / 128},
    "calibrate.conformal_threshold": {"scores": CONFIDENCE},
    "images.corrupt": {"name": "contrast"},
    "images.write_prepared": {"classes": list("abcd"), "labels": np.arange(6) % C, "name": "mine"},
    "report.difficulty_explorer": {"name": "mine"},
    "report.duo_explorer": {
        "fits": [duos.fit_duo(LOGITS, ARRAYS["small"], LABELS)] * (M - 1),
        "names": [f"network {k}" for k in range(M)],
        "rows": 20,
    },
    "images.intervene": {"kind": "noise"},
    "uncertainty.bagged_spread": {
        "classifiers": [linear_heads.fit_head(FEATURES, LABELS, iterations=each) for each in (2, 5)]
    },
    "uncertainty.bag_classifiers": {"options": {"iterations": 2}},
    "uncertainty.train_head": {"options": {"progress": False}},
    "networks.create": {"name": "cifar_resnet8", "weights": None, "classes": C},
    "networks.macs": {"model": Fresh(lambda: networks.create("cifar_resnet8", weights=None)), "size": 32},
    "images.noise_images": {"kind": "uniform"},
    "report.risk_coverage": {"first": 0.25},
    "report.metric_against_cost": {"intervals": [metrics.Interval(0.5, 0.25, 0.75, 0.95, 9)] * 2},
    "combine.greedy_soup": {
        "states": [{"w": torch.full((2,), each)} for each in (1.0, 2.0, 4.0)],
        "scores": np.array([0.5, 0.25, 0.75]),
        "evaluate": lambda state: -abs(float(state["w"][0]) - 3),
    },
    "imbalance.smote": {"labels": np.array([0, 1, 0, 1, 0, 0])},
    "label_noise.area_under_strengths": {"strengths": np.array([0.0, 0.25, 1.0]), "errors": _eighths(2, 3)},
    "label_noise.hierarchical_transition": {"groups": np.arange(8) % 3},
    "label_noise.transition_by_anchors": {"quantile": 0.75},
    "base.split": {"n": N, "labels": LABELS},
    "store.put_answers": {"features": FEATURES},
    "training.train": {"labels": np.arange(6) % C, "options": {"batch": 3, "progress": False}},
    "losses.loss": {"name": "focal"},
    "losses.aldr": {"alpha": 2.0},
    "losses.expected_minimisers": {"criterion": losses.ldr()},
    "losses.optimal_confidence": {"strength": RNG.integers(1, 99, N) / 64},
    "calibrate.confidence": {"name": "energy"},
    "combine.repeat_duo": {"fit_size": 36},
    "combine.choose_l2": {"strengths": (0.5,), "options": {"iterations": 1}},
    "calibrate.scale_logits": {"temperature": np.array([0.5, 1.0, 2.0, 4.0])},
    "metrics.pool": {"draws": (CONFIDENCE[:20], CONFIDENCE[20:23], CONFIDENCE[23:])},
    "metrics.interval": {"arrays": (CONFIDENCE, CORRECT)},
    "report.report": {"outputs": LOGITS, "draws": 3},
    "metrics.groupwise": {"arrays": (CONFIDENCE, CORRECT), "groups": LABELS},
    "metrics.groupwise_intervals": {"arrays": (CONFIDENCE, CORRECT), "groups": LABELS},
    "metrics.debiased_ece": {"weights": np.arange(N) % 3},
    "metrics.average": {"weights": np.array([1.0, 0.5, 0.25])},
    "metrics.classification.average": {"weights": np.array([1.0, 0.5, 0.25])},
    "metrics.flatten": {"outputs": CONFIDENCE, "labels": np.arange(N) % 2, "kind": "binary"},
    "metrics.band": {"curve": "risk_coverage"},
    "report.curve_with_band": {"curve": "risk_coverage"},
    "metrics.how_many": {
        "first": (CONFIDENCE, CORRECT),
        "second": (CONFIDENCE[::-1].copy(), CORRECT),
        "difference": 0.125,
        "power": 0.5,
    },
    "metrics.resample": {"arrays": (CONFIDENCE, CORRECT), "stratify": np.arange(N // 2) % 2 / 2},
    "metrics.resample_together": {
        "statistics": [(metrics.aurc, (CONFIDENCE, CORRECT)), (metrics.ece, (CONFIDENCE, CORRECT))],
        "stratify": np.arange(N // 2) % 2 / 2,
    },
    "metrics.paired_difference": {
        "first": (CONFIDENCE, CORRECT),
        "second": (CONFIDENCE[::-1].copy(), CORRECT),
    },
    "metrics.resample_difference": {
        "first": (CONFIDENCE, CORRECT),
        "second": (CONFIDENCE[::-1].copy(), CORRECT),
        "stratify": np.arange(N // 2) % 2 / 2,
    },
}


# What names of groups may be
NAMES_TOO = {"text", "objects", "float labels", "bool labels", "ignored -1", "ignored -100", "ignored 255"}

# Kinds that one array takes, where others of its type are refused
TAKES = {
    ("combine.window_around", "threshold"): {"inf"},  # of which nothing is accepted
    ("bayes.choose_prior_precision", "values"): {"inf"},  # which leaves the plain softmax
    ("bayes.last_layer_laplace", "prior_precision"): {"inf"},
    ("losses.ldr", "temperature"): {"inf"},
    ("losses.optimal_confidence", "strength"): {"one number", "one axis more"},
    ("images.corrupt", "images"): {"list of tensors"},  # gives a list, in test_corruptions.py
    ("networks.preprocess", "images"): {"empty"},
    ("combine.greedy_soup", "scores"): {"inf", "-inf"},
    **{
        (f"heads.{name}", each): {"empty", "one axis more"}
        for name, each in (("samples_to", "errors"), ("crossing", "first"), ("crossing", "second"))
    },  # any number of curves
    ("label_noise.area_under_strengths", "errors"): {"empty", "one axis more"},  # any number of curves
    **{
        (f"heads.{name}", "counts"): {"ignored 255"} for name in ("key_codes", "key_distance")
    },  # a count like any other
    ("imbalance.minority_classes", "sizes"): {"ignored 255"},  # a size like any other
    ("imbalance.check_sizes", "sizes"): {"ignored 255"},
    ("base.split", "labels"): {"bool labels", "ignored -1", "ignored -100", "ignored 255", "text"},  # any groups
    ("store.put_answers", "logits"): {"nothing"},  # features alone
    ("calibrate.scale_logits", "temperature"): {"inf", "one number"},
    ("metrics.groupwise", "groups"): NAMES_TOO,
    ("metrics.groupwise_intervals", "groups"): NAMES_TOO,
    ("metrics.debiased_ece", "weights"): {"float labels", "bool labels", "ignored 255"},
    ("metrics.flatten", "labels"): {"bool labels"},
}

# Kinds of arrays


@dataclass(frozen=True)
class Kind:
    """A kind of input: how to make it of a good value, and what the book says of it.

    The good value comes as NumPy; None says that there is no such kind of it. `meant` is the plain array whose answer
    is right for this kind, by default the good value itself. A kind that is refused has no right answer.
    """

    says: str
    make: Callable[[np.ndarray], Any]
    meant: Callable[[np.ndarray], np.ndarray] = lambda value: value
    refused: bool = False
    default_dtype: torch.dtype = torch.float32


def floats(make: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    return lambda value: make(value) if value.dtype.kind == "f" else None


def whole(make: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    return lambda value: make(value) if value.dtype.kind == "i" else None


def marks(make: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    return lambda value: make(value) if value.dtype.kind == "b" else None


def columns(make: Callable[[np.ndarray], Any]) -> Callable[[np.ndarray], Any]:
    return lambda value: make(value) if value.ndim == 1 else None


def changed(value: np.ndarray, entry: Any, dtype: Any = None) -> np.ndarray:
    """The same, with the entry in the middle of the second row."""
    value = value.astype(dtype or value.dtype, copy=True)
    value[(1, *(size // 2 for size in value.shape[1:]))] = entry
    return value


def read_only(value: np.ndarray) -> np.ndarray:
    value = value.copy()
    value.setflags(write=False)
    return value


def frame(value: np.ndarray, dtype: str | None = None) -> Any:
    if value.ndim > 2:
        return None
    if value.ndim == 1:
        return pd.Series(value, index=np.arange(len(value))[::-1], dtype=dtype)
    return pd.DataFrame(value, dtype=dtype)


NULLABLE = {"f": "Float64", "i": "Int64", "b": "boolean", "u": "UInt8"}
WIDTHS = ("u1", "u2", "u4", "u8", "i1", "i2", "i4")
TORCH_WIDTHS = (torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.int32)


def with_nothing(value: np.ndarray) -> Any:
    found = frame(value, NULLABLE[value.dtype.kind])
    if found is not None:
        found.iloc[(1, *([1] * (value.ndim - 1)))] = pd.NA
    return found


def masked(value: np.ndarray) -> Any:
    return np.ma.array(value, mask=changed(np.zeros(value.shape, bool), True))


def rounded(dtype: torch.dtype) -> Callable[[np.ndarray], np.ndarray]:
    return lambda value: torch.tensor(value).to(dtype).double().numpy()


KINDS: dict[str, Kind] = {
    "list": Kind("A list, a tuple", lambda value: value.tolist()),
    "tuple": Kind("A list, a tuple", lambda value: tuple(value.tolist())),
    "list of tensors": Kind("A list of tensors of one shape", lambda value: list(torch.tensor(value))),
    "tensor": Kind("A torch tensor", torch.tensor),
    "gradient": Kind("A tensor that requires a gradient", floats(lambda value: torch.tensor(value).requires_grad_())),
    "strided": Kind("Any layout", lambda value: np.repeat(value, 2, 0)[::2]),
    "reversed": Kind("Any layout", lambda value: value[::-1].copy()[::-1]),
    "Fortran": Kind("Any layout", np.asfortranarray),
    "transposed tensor": Kind(
        "Any layout", lambda value: torch.tensor(np.ascontiguousarray(value.T)).permute(*range(value.ndim)[::-1])
    ),
    "read-only": Kind("Any layout", read_only),
    "big-endian": Kind("Any layout", lambda value: value.astype(value.dtype.newbyteorder(">"))),
    "column": Kind("A column (n, 1)", columns(lambda value: value[:, None])),
    "pandas": Kind("pandas", frame),
    "nullable": Kind("pandas nullable", lambda value: frame(value, NULLABLE[value.dtype.kind])),
    "unmasked": Kind("A masked array", np.ma.array),
    **{
        f"float32 {n}": Kind("float32", floats(make), rounded(torch.float32))
        for n, make in (("NumPy", np.float32), ("tensor", lambda value: torch.tensor(value).float()))
    },
    "float16": Kind("float16", floats(np.float16), rounded(torch.float16)),
    "float16 tensor": Kind("float16", floats(lambda value: torch.tensor(value).half()), rounded(torch.float16)),
    "bfloat16": Kind("bfloat16", floats(lambda value: torch.tensor(value).bfloat16()), rounded(torch.bfloat16)),
    **{
        f"labels {width}": Kind("Integers of every width", whole(partial(np.ndarray.astype, dtype=width)))
        for width in WIDTHS
    },
    **{
        f"labels {width}": Kind(
            "Integers of every width", whole(partial(lambda value, width: torch.tensor(value).to(width), width=width))
        )
        for width in TORCH_WIDTHS
    },
    **{
        f"mask {width}": Kind("Zeros and ones for yes and no", marks(partial(np.ndarray.astype, dtype=width)))
        for width in ("i8", "u2", "f8", "f2")
    },
    **{
        f"default {dtype}": Kind("Another default dtype of torch", torch.tensor, default_dtype=dtype)
        for dtype in (torch.float64, torch.float16, torch.bfloat16)
    },
    "float labels": Kind("Labels as floats or bools", whole(np.float64), refused=True),
    "bool labels": Kind("Labels as floats or bools", whole(lambda value: value > 1), refused=True),
    "one-hot": Kind("One-hot rows for labels", whole(lambda value: np.eye(1 + value.max())[value]), refused=True),
    "ignored -1": Kind("Marks of rows to ignore", whole(lambda value: changed(value, -1)), refused=True),
    "ignored -100": Kind("Marks of rows to ignore", whole(lambda value: changed(value, -100)), refused=True),
    "ignored 255": Kind("Marks of rows to ignore", whole(lambda value: changed(value, 255)), refused=True),
    "beyond int64": Kind("Whole numbers too large", whole(lambda value: changed(value, 2**64 - 1, "u8")), refused=True),
    "two": Kind("Other numbers for yes and no", marks(lambda value: changed(value, 2, "i8")), refused=True),
    "missing": Kind("A missing entry", with_nothing, refused=True),
    "masked": Kind("A missing entry", masked, refused=True),
    "nan": Kind("NaN", lambda value: changed(value, math.nan, "f8"), refused=True),
    "inf": Kind("Infinity", floats(lambda value: changed(value, math.inf)), refused=True),
    "-inf": Kind("Infinity", floats(lambda value: changed(value, -math.inf)), refused=True),
    "None": Kind("None, text", lambda value: [None, *value.tolist()[1:]], refused=True),
    "text": Kind("None, text", lambda value: value.astype(str), refused=True),
    "objects": Kind("Object arrays", lambda value: value.astype(object), refused=True),
    "complex": Kind("Complex numbers", lambda value: value + 0j, refused=True),
    "sparse": Kind("Sparse tensors", lambda value: torch.tensor(value).to_sparse(), refused=True),
    "long double": Kind("Long double", floats(np.longdouble), refused=np.longdouble != np.float64),
    "empty": Kind("Nothing in it", lambda value: value[:0], refused=True),
    "one number": Kind("One number", lambda value: value.reshape(-1)[0].copy(), refused=True),
    "one axis more": Kind("Another number of axes", lambda value: np.stack([value, value]), refused=True),
    "dictionary": Kind("A dictionary", lambda value: {"rows": value}, refused=True),
    "string": Kind("None, text", lambda value: "cat", refused=True),
    "nothing": Kind("None, text", lambda value: None, refused=True),
}


# Kinds of numbers: each is the number, or refused.

NUMBERS: dict[str, Callable[[int | float], Any]] = {
    "NumPy int": lambda value: np.int64(value),
    "NumPy uint8": lambda value: np.uint8(value),
    "NumPy float": lambda value: np.float64(value),
    "NumPy float32": lambda value: np.float32(value),
    "array": lambda value: np.array(value),
    "tensor": lambda value: torch.tensor(value),
    "float": float,
    "bool": lambda value: True,
    "NumPy bool": lambda value: np.bool_(True),
    "text": str,
    "nan": lambda value: math.nan,
    "inf": lambda value: math.inf,
    "list": lambda value: [value],
    "array of one": lambda value: np.array([value]),
    "complex": complex,
}


# Finding the functions, and calling them


@cache
def functions() -> dict[str, Callable]:
    """Every public function of the library, by module and name."""
    found = {}
    for module in pkgutil.walk_packages(uqlib.__path__, "uqlib."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(value) and name[0] != "_" and value.__module__ == module.name:
                found[f"{module.name.removeprefix('uqlib.')}.{name}"] = value
    return found


def short(name: str) -> str:
    """Family and function, without the file between them."""
    return f"{name.split('.')[0]}.{name.rsplit('.', 1)[-1]}"


def parts(annotation: Any) -> list[Any]:
    """What an annotation allows, unions taken apart."""
    inner = get_args(annotation) if type(annotation).__name__ in ("UnionType", "Union", "_UnionGenericAlias") else ()
    return [part for each in inner for part in parts(each)] or [annotation]


def is_array(parameter: inspect.Parameter) -> bool:
    kinds = parts(parameter.annotation)
    plain = {int, float, str, bool} & set(kinds) and np.ndarray not in kinds
    named = parameter.name in ARRAYS and not plain
    several = parameter.name in ("first", "second", "draws", "scores") and not plain and not set(MADE) & set(kinds)
    return (
        named
        or several
        or any(k in (np.ndarray, torch.Tensor) or (inspect.isclass(k) and issubclass(k, AbstractArray)) for k in kinds)
    )


def is_number(parameter: inspect.Parameter) -> bool:
    return not is_array(parameter) and bool({int, float} & set(parts(parameter.annotation)))


def good(name: str) -> dict[str, Any]:
    """A good value for each argument of the function."""
    values = {}
    for parameter in inspect.signature(functions()[name]).parameters.values():
        kinds = [kind for kind in parts(parameter.annotation) if inspect.isclass(kind)]
        made = next((MADE[kind] for kind in kinds if kind in MADE), None)
        if parameter.name in BY_FUNCTION.get(short(name), {}):
            values[parameter.name] = BY_FUNCTION[short(name)][parameter.name]
        elif made is not None:
            values[parameter.name] = made()
        elif is_array(parameter):
            if parameter.name not in ARRAYS:
                if parameter.default is not parameter.empty:
                    continue
                raise LookupError(f"the array {parameter.name!r} of {name} is unknown: give ARRAYS a good value")
            values[parameter.name] = ARRAYS[parameter.name]
        elif parameter.name in OTHERS and (
            is_number(parameter) or parameter.default is parameter.empty or parameter.name in ("root", "progress")
        ):
            if OTHERS[parameter.name] is not None:
                values[parameter.name] = OTHERS[parameter.name]
        elif parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            raise LookupError(
                f"the argument {parameter.name!r} of {name} is unknown: give OTHERS a value for the name or MADE one for the "
                "type, or say in EXCEPTIONS why there is no walk"
            )
    return values


def call(name: str, values: Mapping[str, Any]) -> Any:
    """The function's answer, as plain numbers; what is random is drawn anew from one seed."""
    function, positional, named = functions()[name], [], {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in values:
            continue
        value = values[parameter.name]
        value = value.make() if isinstance(value, Fresh) else value
        if parameter.kind == parameter.VAR_POSITIONAL:
            positional += value
        elif parameter.kind == parameter.VAR_KEYWORD:
            named |= value
        elif parameter.kind == parameter.KEYWORD_ONLY:
            named[parameter.name] = value
        else:
            positional.append(value)
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return plain(function(*positional, **named))


def stored(file: Path) -> store.Answers:
    """All that an entry holds."""
    return store.read_entry(file, columns=tuple(store.read_entry(file, columns=()).entry.header.columns))


def plain(answer: Any) -> Any:
    """Numbers in lists: of arrays, of results of several parts, and of a loss its value on a batch."""
    if isinstance(answer, losses.Criterion):
        answer = answer(torch.tensor(LOGITS), torch.tensor(LABELS), torch.arange(N))
    if isinstance(answer, Images):
        answer = list(answer)
    if isinstance(answer, np.ndarray | torch.Tensor):
        return [float(x) for x in torch.as_tensor(answer).detach().double().reshape(-1)]
    if isinstance(answer, nn.Module):
        return plain(list(answer.parameters()))
    if isinstance(answer, Axes):
        return plain([line.get_xydata() for line in answer.lines])
    if isinstance(answer, Path):  # what was written there
        files = sorted(answer.rglob("*.npy")) if answer.is_dir() else [answer]
        return plain([np.load(file) if file.suffix == ".npy" else stored(file) for file in files])
    if isinstance(answer, store.Answers):
        return plain(dict(answer.columns))
    if isinstance(answer, Figure):
        return plain(answer.get_size_inches())
    if isinstance(answer, training.Epoch | training.EpochLog):
        return [answer.epoch, answer.loss]  # the rest is time
    if isinstance(answer, pd.DataFrame):
        return plain(answer.select_dtypes("number").to_numpy())
    if is_dataclass(answer):
        return {field.name: plain(getattr(answer, field.name)) for field in fields(answer)}
    if isinstance(answer, Mapping):
        return {key: plain(value) for key, value in answer.items()}
    if isinstance(answer, list | tuple):
        return [plain(value) for value in answer]
    return answer


def flat(answer: list) -> list:
    return [x for each in answer for x in (flat(each) if isinstance(each, list) else [each])]


def same(answer: Any, other: Any, tolerance: float) -> bool:
    if isinstance(answer, dict):
        return (
            isinstance(other, dict)
            and answer.keys() == other.keys()
            and all(same(answer[k], other[k], tolerance) for k in answer)
        )
    if isinstance(answer, list) and isinstance(other, list):
        answer, other = flat(answer), flat(other)  # a list of arrays for a list of arrays
        return len(answer) == len(other) and all(map(partial(same, tolerance=tolerance), answer, other))
    if isinstance(answer, float) and isinstance(other, float | int):
        return math.isclose(answer, other, rel_tol=tolerance, abs_tol=tolerance) or (
            answer != answer and other != other
        )
    return type(answer) is type(other) and answer == other


def outcome(name: str, said: set[str], values: Mapping[str, Any], reference: Any, tolerance: float) -> str:
    """ "same", "refused" with one of the names said, or what is wrong."""
    try:
        answer = call(name, values)
    except (TypeError, ValueError) as error:
        if any(re.search(rf"\b{word}\b", str(error)) for word in said):
            return "refused"
        return f"{type(error).__name__} without the name: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "same" if same(answer, reference, tolerance) else f"another answer: {answer!s:.80} for {reference!s:.80}"


def with_array(values: dict[str, Any], argument: str, place: int | None, given: Any) -> dict[str, Any]:
    """The values with one array put in the place of another; a place is one in a tuple of arrays."""
    if place is None:
        return values | {argument: given}
    arrays = list(values[argument])
    arrays[place] = given
    return values | {argument: tuple(arrays)}


def faults_of_kinds(name: str, argument: str, values: dict[str, Any]) -> list[str]:
    """What is wrong with any kind of one array, or of each of several."""
    if isinstance(values[argument], tuple):
        places = range(len(values[argument]))
        return [fault for place in places for fault in faults_of_array(name, argument, values, place)]
    return faults_of_array(name, argument, values, None)


def faults_of_array(name: str, argument: str, values: dict[str, Any], place: int | None) -> list[str]:
    value = values[argument] if place is None else values[argument][place]
    said = {argument} if place is None else {argument, "confidence", "correct"}  # which the statistic says
    optional = inspect.signature(functions()[name]).parameters[argument].default is None
    faults, references = [], {}
    for kind, each in KINDS.items():
        given = each.make(value)
        if (
            kind in TAKES.get((short(name), argument), ())
            or (given is None and kind != "nothing")
            or (kind == "nothing" and optional)
        ):
            continue
        reference = None
        if not each.refused:
            meant = each.meant(value)
            if (key := meant.tobytes()) not in references:
                references[key] = call(name, with_array(values, argument, place, meant))
            reference = references[key]
        with default_dtype(each.default_dtype):
            found = outcome(name, said, with_array(values, argument, place, given), reference, 1e-5)
        if found not in ("refused", *(() if each.refused else ("same",))):
            faults.append(f"{argument} as {kind}: {found}")
    return faults


def faults_of_numbers(name: str, argument: str, values: dict[str, Any]) -> list[str]:
    value, reference = values[argument], call(name, values)
    faults = []
    for kind, make in NUMBERS.items():
        if kind in TAKES.get((short(name), argument), ()):
            continue
        if isinstance(value, float) and value != int(value) and kind in ("NumPy int", "NumPy uint8"):
            continue
        found = outcome(name, {argument}, values | {argument: make(value)}, reference, 1e-5)
        if found not in ("same", "refused"):
            faults.append(f"{argument} as {kind}: {found}")
    return faults


def excepted(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in EXCEPTIONS)


def is_walked(name: str) -> bool:
    """Whether there is an array or a number to vary."""
    return any(is_array(p) or is_number(p) for p in inspect.signature(functions()[name]).parameters.values())


WALKED = [name for name in functions() if is_walked(name) and not excepted(name)]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xfail(strict=False)) if name in WAITING else name for name in WALKED]
)
def test_every_kind_is_right_or_refused_by_name(unchecked, name):
    values = good(name)
    faults = []
    for parameter in inspect.signature(functions()[name]).parameters.values():
        if parameter.name in values and is_array(parameter):
            faults += faults_of_kinds(name, parameter.name, values)
        elif parameter.name in values and is_number(parameter):
            faults += faults_of_numbers(name, parameter.name, values)
    assert not faults, "\n".join([name, *faults])


def test_a_function_of_unknown_arguments_fails_and_says_what_to_add(monkeypatch):
    def new(spectrum: np.ndarray | torch.Tensor, *, width: int) -> float:
        return float(torch.as_tensor(spectrum).sum()) + width

    def other(logits: np.ndarray | torch.Tensor, *, kernel: str) -> float:
        return 0.0

    monkeypatch.setitem(functions(), "new.new", new)
    monkeypatch.setitem(functions(), "new.other", other)
    assert is_walked("new.new")
    with pytest.raises(LookupError, match=r"the array 'spectrum' of new\.new is unknown: give ARRAYS a good value"):
        good("new.new")
    with pytest.raises(LookupError, match=r"the argument 'kernel' of new\.other is unknown: give OTHERS a value"):
        good("new.other")


@pytest.mark.parametrize(
    ("function", "fault"),
    [
        (lambda logits: np.asarray(logits, dtype=float).sum(), "logits as nan: another answer"),
        (lambda logits: logits.sum(), "logits as list: AttributeError"),
        (lambda logits: check_logits(logits, "table").sum(), "logits as nan: ValueError without the name"),
        (lambda logits: check_logits(logits).double().sum(), "bins as bool: another answer"),
    ],
)
def test_the_walk_sees_what_is_wrong(unchecked, monkeypatch, function, fault):
    def new(logits: np.ndarray | torch.Tensor, *, bins: int = 5) -> float:
        return bins * float(function(logits))

    monkeypatch.setitem(functions(), "new.new", new)
    values = good("new.new")
    faults = faults_of_kinds("new.new", "logits", values) + faults_of_numbers("new.new", "bins", values)
    assert any(each.startswith(fault) for each in faults), faults


CORE = {
    "metrics.classification.nll": ("logits", "labels"),
    "metrics.classification.brier": ("probs", "labels"),
    "metrics.classification.macro_f1": ("preds", "labels"),
    "metrics.calibration.ece": ("confidence", "correct"),
    "metrics.selective.aurc": ("confidence", "correct"),
    "metrics.detection.auroc": ("score", "positive"),
    "calibrate.confidences.energy": ("logits",),
    "calibrate.temperature.fit_temperature": ("logits", "labels"),
    "combine.duos.fit_duo": ("large", "small", "labels"),
}


@pytest.mark.parametrize("name", CORE)
def test_what_the_book_calls_taken_is_taken(unchecked, monkeypatch, name):
    """The walk allows a refusal; here what is not refused by the table must give the answer."""
    for kind in [kind for kind, each in KINDS.items() if each.refused]:
        monkeypatch.delitem(KINDS, kind)
    values = good(name)
    for argument in CORE[name]:
        for kind, each in KINDS.items():
            given = each.make(values[argument])
            if given is None or each.default_dtype != torch.float32:
                continue
            reference = call(name, values | {argument: each.meant(values[argument])})
            assert outcome(name, {argument}, values | {argument: given}, reference, 1e-5) == "same", (
                f"{argument}: {kind}"
            )


def test_the_page_of_the_book_says_what_the_walk_found(repository):
    page = (repository / "book/kinds.md").read_text().split("## Arrays")[1].split("## Numbers")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in page.splitlines() if line.startswith("| ")
    ]
    said = {kind: text.startswith("Refused") for kind, text in rows[2:]}
    assert all(text.startswith(("Taken", "Refused")) for _, text in rows[2:])
    assert said == {each.says: each.refused for each in KINDS.values()}
