import numpy as np
from netcal.metrics import ECE

confidence, correct = np.array([0.6, 0.7] + [1.0] * 8), np.array([1, 0] + [1] * 8)
print(ECE(5, equal_intervals=False, detection=True).measure(confidence, correct))
