import numpy as np
from netcal.scaling import TemperatureScaling

probs = np.random.default_rng(0).dirichlet(np.ones(5), 2000)
cooler = np.sqrt(probs) / np.sqrt(probs).sum(1, keepdims=True)  # the labels are drawn at T = 2
labels = (cooler.cumsum(1) < np.random.default_rng(1).random((2000, 1))).sum(1).clip(max=4)
for dtype in ("float32", "float64"):
    scaler = TemperatureScaling()
    scaler.fit(probs.astype(dtype), labels)
    print(dtype, "factor on the logits", round(float(scaler.temperature[0]), 3))
