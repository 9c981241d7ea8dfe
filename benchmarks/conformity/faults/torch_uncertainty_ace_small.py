import torch
from torch_uncertainty.metrics import AdaptiveCalibrationError

ace = AdaptiveCalibrationError(task="multiclass", num_classes=2, num_bins=10)
ace.update(torch.tensor([[0.1, 0.9]] * 5), torch.tensor([1, 1, 1, 1, 0]))
print(float(ace.compute()))
