import torch
from pytorch_ood.metrics.functional import aupr

same, labels = torch.full((1000,), 0.5), torch.tensor([0] * 900 + [-1] * 100)
print(float(aupr(same, labels)), "with 100 of 1000 foreign, which is what guessing finds: 0.1")
