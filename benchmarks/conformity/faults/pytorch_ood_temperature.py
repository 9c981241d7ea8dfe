import torch
from pytorch_ood.detector import TemperatureScaling

logits = 3 * torch.randn(10000, 10, generator=torch.manual_seed(0))
labels = torch.multinomial((logits / 3).softmax(1), 1)[:, 0]
print("T =", round(float(TemperatureScaling(None).fit_logits(logits, labels).t), 2), "of labels drawn at T = 3")
