"""Recall@1 beside scikit-learn, FAISS and a plain product in torch, and what an uncertainty head costs, in one run.

    python benchmarks/retrieval.py                                   # 20,000 x 512, 1 thread, a minute or two
    python benchmarks/retrieval.py --rows 50000 --width 1280 --threads 2
    python benchmarks/retrieval.py --only head

Contestants get the same float32 features and take turns, so that a busy machine is busy for all of them. The error is
the share of rows whose neighbour is farther by more than 1e-6 than the nearest one in float64. FAISS takes part where it
is installed (`pip install faiss-cpu`). The head is timed on the features of a real pass of the backbone and as the share
of the time of that pass that it adds, which is what `WithUncertainty` promises; then an epoch of its training.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from uqlib import networks
from uqlib.metrics import nearest_neighbours
from uqlib.uncertainty import UncertaintyHead, WithUncertainty, train_head

try:
    import faiss
except ImportError:
    faiss = None


def clustered(rows: int, width: int) -> Tensor:
    """Features around 200 centres, which is where neighbours are searched."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(200, width, generator=generator)
    return centres[torch.arange(rows) % 200] + 1.5 * torch.randn(rows, width, generator=generator)


def of_scikit_learn(x: Tensor) -> np.ndarray:
    search = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(x.numpy())
    return search.kneighbors(return_distance=False)[:, 0]


def of_torch(x: Tensor) -> Tensor:
    """What one writes without a library: n x n similarities, 1,000 rows at a time."""
    x = torch.nn.functional.normalize(x)
    found = []
    for start, part in enumerate(x.split(1000)):
        similar = part @ x.T
        similar[torch.arange(len(part)), 1000 * start + torch.arange(len(part))] = -torch.inf
        found.append(similar.argmax(1))
    return torch.cat(found)


def of_faiss(x: Tensor) -> np.ndarray:
    """The flat index of inner products, two neighbours, and the one that is not the row itself."""
    rows = np.array(x.numpy())
    faiss.normalize_L2(rows)
    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    found = index.search(rows, 2)[1]
    return np.where(found[:, 0] == np.arange(len(rows)), found[:, 1], found[:, 0])


def contestants() -> dict[str, Callable[[Tensor], object]]:
    """uqlib first."""
    found = {
        "uqlib": lambda x: nearest_neighbours(x).rows[:, 0],
        "uqlib, k = 5": lambda x: nearest_neighbours(x, k=5).rows[:, 0],
        "torch, by hand": of_torch,
        "scikit-learn": of_scikit_learn,
    }
    return found | ({"FAISS": of_faiss} if faiss else {})


def share_wrong(x: Tensor, rows: object, asked: int = 500) -> float:
    """Of some rows, how many have a neighbour that is farther than the nearest in float64."""
    unit = torch.nn.functional.normalize(x.double())
    similar = unit[:asked] @ unit.T
    similar.fill_diagonal_(-torch.inf)
    own = similar.gather(1, torch.as_tensor(rows)[:asked, None])[:, 0]
    return (own < similar.amax(1) - 1e-6).double().mean().item()


def seconds(run: Callable[[], object]) -> tuple[float, float]:
    """By the clock on the wall, and of the processor: the second leaves out what other programs took."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def medians(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, tuple[float, float]]:
    """Median times of contestants that take turns."""
    times: dict[str, list] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            times[name].append(seconds(run))
    return {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}


def search(rows: int, width: int, repeats: int) -> Iterator[str]:
    """The table of the search."""
    x, runs = clustered(rows, width), contestants()
    wrong = {name: share_wrong(x, run(x)) for name, run in runs.items()}  # the warm-up, too
    found = medians({name: lambda run=run: run(x) for name, run in runs.items()}, repeats)
    yield f"| nearest other row, {rows} x {width} | wrong | wall time | processor time | ratios to uqlib |\n|---|---|---|---|---|"
    for name, (wall, processor) in found.items():
        ratios = f"{wall / found['uqlib'][0]:.2f}, {processor / found['uqlib'][1]:.2f}"
        yield f"| {name} | {wrong[name]:.1%} | {wall:.3g} s | {processor:.3g} s | {ratios} |"


def head(backbone: str, size: int, hidden: int, repeats: int) -> Iterator[str]:
    """How much of a forward pass the head adds, by time and by multiply-adds."""
    model = networks.create(backbone, weights=None, seed=0).eval()
    whole = WithUncertainty(model, UncertaintyHead(model.get_classifier().in_features, width=hidden)).eval()
    images = torch.randn(64, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = whole(images).features
        found = medians({"network": lambda: model(images), "head": lambda: whole.head(features)}, repeats)
    work = sum(layer.weight.numel() for layer in whole.head.layers) / networks.macs(model, size=size)
    wall, processor = (one / all_ for one, all_ in zip(found["head"], found["network"], strict=True))
    yield f"head of width {hidden} on {backbone}, 64 images of {size} pixels: {wall:.2%} of the wall time of a pass, "
    yield f"  {processor:.2%} of the processor's, {work:.2%} of the multiply-adds"


def training(rows: int, width: int, hidden: int) -> Iterator[str]:
    """An epoch of a head on cached features."""
    x, losses = clustered(rows, width), torch.rand(rows, generator=torch.Generator().manual_seed(1))
    for objective in ("ranking", "regression"):
        own = UncertaintyHead(width, width=hidden)
        wall, processor = seconds(
            lambda own=own, goal=objective: train_head(own, x, losses, objective=goal, epochs=1, progress=False)
        )
        yield f"an epoch of a head of width {hidden} on {rows} x {width}, {objective}: {wall:.2f} s, {processor:.2f} s of the processor"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["search", "head", "training"], action="append", help="by default all")
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--learnt", type=int, default=100_000, help="rows that a head learns from, 1,280 wide")
    parser.add_argument("--backbone", default="tf_mobilenetv2_100")
    parser.add_argument("--size", type=int, default=128, help="of the images of the backbone")
    parser.add_argument("--hidden", type=int, default=128, help="width of the head")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of torch and FAISS; others read $OMP_NUM_THREADS")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if faiss:
        faiss.omp_set_num_threads(args.threads)
    print(
        f"{args.threads} thread(s), torch {torch.__version__}, FAISS {faiss.__version__ if faiss else 'not installed'}"
    )
    parts = {
        "search": lambda: search(args.rows, args.width, args.repeats),
        "head": lambda: head(args.backbone, args.size, args.hidden, args.repeats),
        "training": lambda: training(args.learnt, 1280, args.hidden),
    }
    for name in args.only or parts:
        for line in parts[name]():
            print(line, flush=True)


if __name__ == "__main__":
    main()
