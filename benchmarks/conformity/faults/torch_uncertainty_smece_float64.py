import torch
from torch_uncertainty.metrics import SmoothCalibrationError

smece = SmoothCalibrationError()
smece.update(torch.tensor([[0.1, 0.9]] * 5, dtype=torch.float64), torch.tensor([1, 1, 1, 1, 0]))
print(float(smece.compute()))
