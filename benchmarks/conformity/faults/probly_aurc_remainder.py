import numpy as np
from probly.evaluation.tasks import selective_prediction

losses = (np.arange(99) < 60).astype(float)
print(selective_prediction(1 - np.arange(99) / 99, losses)[0], "the 99 risks have the mean", end=" ")
print(np.mean([losses[99 - k :].mean() for k in range(1, 100)]))
