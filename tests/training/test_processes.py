import subprocess
import sys

import numpy as np
import pytest
import torch
from toys import Small, fit, remembering, weights

from uqlib.training import average_gradients


def test_one_process_keeps_its_gradients():
    model = Small()
    model.head.weight.grad = torch.ones(3, 6)
    average_gradients(model.parameters())
    assert (model.head.weight.grad == 1).all()
    assert model.conv.weight.grad is None


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(pictures, tmp_path, repository):
    """Each has half of every batch, and gradients are averaged: the same steps but for rounding, the same history.

    The script also holds what two processes do to torch's DistributedDataParallel, to the last bit.
    """
    for name, array in zip(("images", "labels"), pictures, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = repository / "tests/training/two_processes.py"
    done = subprocess.run([*launch, script, tmp_path], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    one = Small()
    kept = remembering()
    fit(one, *pictures, epochs=3, augmentation="none", loss=kept)
    saved = torch.load(tmp_path / "two.pt", weights_only=True)
    two = Small()
    two.load_state_dict(saved["model"])
    for name, buffer in kept.state_dict().items():
        assert torch.allclose(buffer.double(), saved["loss"][name].double(), atol=1e-5), name
    assert (kept.times == 3).all()
    assert (weights(one) - weights(two)).abs().max() < 1e-6
    assert (weights(one) - weights(Small())).abs().max() > 1e-3
