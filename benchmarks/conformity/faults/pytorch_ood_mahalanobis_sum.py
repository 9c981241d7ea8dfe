import torch
from pytorch_ood.detector import Mahalanobis

z = torch.randn(20000, 8, generator=torch.manual_seed(0))
for n in (200, 20000):
    print(float(Mahalanobis(None).fit_features(z[:n], torch.arange(n) % 2).predict_features(z[:200]).mean()))
