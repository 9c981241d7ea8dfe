import torch
from torchmetrics.functional.classification import binary_calibration_error

confidence, correct = torch.tensor([0.95, 0.95, 1.0, 1.0]), torch.tensor([1, 1, 1, 0])
print(float(binary_calibration_error(confidence, correct, n_bins=10, norm="max")))
print(float(binary_calibration_error(confidence.clamp(max=0.9999), correct, n_bins=10, norm="max")))
