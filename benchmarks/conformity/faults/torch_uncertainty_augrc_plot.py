import torch
from torch_uncertainty.metrics import AUGRC

probs = torch.rand(1000, 4, generator=torch.manual_seed(0)).softmax(1)
(augrc := AUGRC()).update(probs, torch.multinomial(probs, 1)[:, 0])
print(f"{float(augrc.compute()):.2%}", augrc.plot()[1].texts[0].get_text())
