import torch
from torchmetrics.functional.classification import binary_auroc

score = torch.tensor([0.1, 0.7, 0.9])
print(float(binary_auroc(score, torch.tensor([1, 1, 1]))), float(binary_auroc(score, torch.tensor([0, 0, 0]))))
