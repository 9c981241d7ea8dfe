import torch
from torch_uncertainty.metrics import SmoothCalibrationError

smece = SmoothCalibrationError(kernel_type="reflected", bandwidth=0.05)
smece.update(torch.tensor([[0.0, 1.0], [0.3, 0.7]] * 500), torch.tensor([1, 0] * 500))
print(float(smece.compute()), "the half at 1 is right, the half at 0.7 wrong: 0.35")
