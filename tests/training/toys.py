"""A small network and a training of it, for all tests of this folder."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

from uqlib import losses
from uqlib.networks import Preprocessing
from uqlib.training import train

PLAIN = Preprocessing(8, (0.5,) * 3, (0.25,) * 3)


class Small(nn.Module):
    """A convolution, dropout and a classifier, with timm's contract as far as a training needs it."""

    num_classes = 3

    def __init__(self, drop: float = 0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.head, self.drop = nn.Conv2d(3, 6, 3), nn.Linear(6, 3), nn.Dropout(drop)

    def get_classifier(self):
        return self.head

    def forward(self, x):
        return self.head(self.drop(F.relu(self.conv(x)).mean((2, 3))))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


fit = partial(train, preprocessing=PLAIN, lr=0.05, optimizer="sgd", batch=8, progress=False)


def remembering():
    """Cross entropy that keeps a history and a record; the pairs of a ranking would depend on who has which images."""
    return losses.Recorded(losses.ranking(examples=40, strength=0.0), examples=40, epochs=3)
