import numpy as np
from probly.evaluation.ood import evaluate_ood

same = np.full(1000, 0.5)
print(evaluate_ood(same, same, "all"))
