"""PGD beside torchattacks, foolbox and the Adversarial Robustness Toolbox: success and time; what an adversarial step costs.

    python benchmarks/attack.py                                            # digits at 32 pixels, cifar_resnet8_w32, minutes
    python benchmarks/attack.py --data cifar10 --network cifar_resnet20 --weights cifar10_resnet20.safetensors
    python benchmarks/attack.py --only step --threads 2

Without --weights the network is trained first, for two epochs on attacked images, so that the attack succeeds on some and
fails on others. Contestants get the same network, images, radius, step and number of steps, and take turns, so that a busy
machine is busy for all of them. Peers that are not installed are left out (`pip install torchattacks foolbox`).
Without a random start all must find the same images; with one, the share of images that they move across must be equal
within the noise of the starts.
"""

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uqlib import networks
from uqlib.attack import UnitImages, adversarial_step, pgd
from uqlib.images import load_images
from uqlib.networks import Preprocessing, take_turns
from uqlib.training import Views, loop

# coverage.py beside this file is not the package of that name, which foolbox comes to ask for
sys.path = [place for place in sys.path if Path(place).resolve() != Path(__file__).resolve().parent]
RADIUS, STEP = 8 / 255, 2 / 255
PLAIN = Preprocessing(32, (0.0,) * 3, (1.0,) * 3)  # images in [0, 1]
Attack = Callable[[Tensor, Tensor], Tensor]


def of_torchattacks(network: nn.Module, steps: int, random: bool) -> Attack:
    from torchattacks.attacks.pgd import PGD

    return PGD(network, eps=RADIUS, alpha=STEP, steps=steps, random_start=random)


def of_foolbox(network: nn.Module, steps: int, random: bool) -> Attack:
    import foolbox

    model = foolbox.PyTorchModel(network, bounds=(0, 1))
    attack = foolbox.attacks.LinfPGD(abs_stepsize=STEP, steps=steps, random_start=random)
    return lambda x, y: attack.run(model, x, foolbox.criteria.Misclassification(y), epsilon=RADIUS)


def of_art(network: nn.Module, steps: int, random: bool) -> Attack:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    shape = {"input_shape": (3, 32, 32), "nb_classes": 10, "clip_values": (0.0, 1.0), "device_type": "cpu"}
    estimator = PyTorchClassifier(network, loss=nn.CrossEntropyLoss(), **shape)
    options = {"eps": RADIUS, "eps_step": STEP, "max_iter": steps, "num_random_init": int(random), "verbose": False}
    attack = ProjectedGradientDescentPyTorch(estimator, batch_size=500, **options)
    return lambda x, y: torch.from_numpy(attack.generate(x.numpy(), y.numpy()))


def contestants(network: nn.Module, steps: int, random: bool) -> dict[str, Attack]:
    """uqlib first."""
    start = "random" if random else "none"
    ours = partial(pgd, network, radius=RADIUS, step_size=STEP, steps=steps, start=start)
    peers = {"torchattacks": of_torchattacks, "foolbox": of_foolbox, "art": of_art}
    there = {name: make for name, make in peers.items() if importlib.util.find_spec(name)}
    return {"uqlib": ours} | {name: make(network, steps, random) for name, make in there.items()}


def share_moved(network: nn.Module, attack: Attack, x: Tensor, y: Tensor) -> float:
    """Of the images that were right, how many are wrong after the attack."""
    with torch.no_grad():
        right = network(x).argmax(-1) == y
    moved = attack(x, y)
    network.eval()
    with torch.no_grad():
        return (network(moved).argmax(-1) != y)[right].double().mean().item()


def attacks(network: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Iterator[str]:
    """The table of attacks."""
    yield "| PGD | farthest from uqlib's images | images moved across | processor time | ratio to uqlib |\n|---|---|---|---|---|"
    for steps in (10, 20):
        for random in (False, True):
            runs = contestants(network, steps, random)
            torch.manual_seed(0)
            first = runs["uqlib"](x, y)
            apart = {name: (run(x, y) - first).abs().max().item() for name, run in runs.items()}
            success = {name: share_moved(network, run, x, y) for name, run in runs.items()}
            calls = {name: partial(run, x, y) for name, run in runs.items()}
            found = {
                name: t.median().item() for name, t in take_turns(calls, rounds=rounds, clock=time.process_time).items()
            }
            for name, seconds in found.items():
                far = "random" if random else f"{apart[name]:.1e}"
                yield (
                    f"| {steps} steps, {'random start' if random else 'no start'}: {name} | {far} | {success[name]:.2%} | "
                    f"{seconds:.3g} s | {seconds / found['uqlib']:.2f} |"
                )


def step_cost(network: nn.Module, x: Tensor, y: Tensor, rounds: int) -> Iterator[str]:
    """An adversarial step in passes forward and backward of plain training on the same batch."""
    rows, generator = torch.arange(128), torch.Generator().manual_seed(0)

    def backward(loss: Callable[[], Tensor]) -> None:
        network.train().zero_grad(set_to_none=True)
        loss().backward()

    calls = {0: partial(backward, lambda: F.cross_entropy(network(x[rows]), y[rows]))}
    for steps in (1, 5, 10):
        step = adversarial_step(network, lambda rows, _: x[rows], y, radius=RADIUS, step_size=STEP, steps=steps)
        calls[steps] = partial(backward, partial(step, rows, generator))
    found = {steps: t.median().item() for steps, t in take_turns(calls, rounds=rounds, clock=time.process_time).items()}
    for steps in (1, 5, 10):
        passes = found[steps] / found[0]
        yield f"adversarial step of {steps} steps: {passes:.2f} plain passes, {passes / (steps + 1):.2f} of steps + 1"


def prepared(args: argparse.Namespace) -> tuple[nn.Module, Tensor, Tensor]:
    """The network on images in [0, 1], and the images and labels to attack."""
    data = load_images(args.data, "test")
    start = {"weights": args.weights} if args.weights else {"weights": None, "classes": 10, "seed": 0}
    model = networks.create(args.network, **start)
    network = UnitImages(model, networks.preprocessing(model))
    if not args.weights:
        train = load_images(args.data, "train")
        views, labels = Views(train.images, PLAIN, beside=model), torch.tensor(train.labels)
        step = adversarial_step(network, views, labels, radius=RADIUS, step_size=4 * STEP, steps=2)
        fixed = {"parts": {"model": model}, "trained": model.parameters(), "seed": 0, "progress": False}
        loop(step, examples=len(views), epochs=2, lr=0.003, **fixed)
    images = networks.preprocess(data.images[: args.images], PLAIN).contiguous()
    return network.eval(), images, torch.tensor(data.labels[: args.images])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["attacks", "step"], action="append", help="by default both")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--network", default="cifar_resnet8_w32")
    parser.add_argument("--weights", help="file of the network; without one it is trained first")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    network, x, y = prepared(args)
    print(f"{args.network} on {len(x)} images of {args.data}, {args.threads} thread(s), torch {torch.__version__}")
    parts = {"attacks": attacks, "step": step_cost}
    for name in args.only or parts:
        for line in parts[name](network, x, y, args.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    main()
