import torch
from pytorch_ood.metrics.functional import aurra

same, correct = torch.full((16,), 0.8), torch.arange(16) // 8
print(round(aurra(same, correct), 4), round(aurra(same, correct.flip(0)), 4))
