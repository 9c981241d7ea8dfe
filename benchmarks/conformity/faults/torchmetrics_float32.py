import torch
from torchmetrics.functional.classification import binary_calibration_error as ece

confidence = torch.rand(10**7, generator=torch.manual_seed(0)) / 2 + 0.5
correct = (torch.rand(10**7) < confidence - 0.05).long()
print(*(round(float(ece(confidence.to(dtype), correct)), 6) for dtype in (torch.float32, torch.float64)))
