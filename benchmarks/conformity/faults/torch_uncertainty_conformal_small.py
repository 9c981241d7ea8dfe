import torch
from torch_uncertainty.post_processing import ConformalClsTHR

sets = ConformalClsTHR(alpha=0.1, model=torch.nn.Identity(), enable_ts=False)
sets.fit([(torch.tensor([[p, 1 - p]]).log(), torch.tensor([0])) for p in (0.9, 0.8, 0.7, 0.6)])
print(round(float(sets.q_hat), 3), "of 4 scores: a promise of 90 % needs at least 9")
