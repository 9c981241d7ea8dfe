import torch
from torch_uncertainty.metrics import AURC

for target in (torch.arange(16) // 8, 1 - torch.arange(16) // 8):  # the errors first, and last
    aurc = AURC()
    aurc.update(torch.tensor([[0.2, 0.8]] * 16), target)
    print(float(aurc.compute()))
