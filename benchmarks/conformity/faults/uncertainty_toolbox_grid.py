import numpy as np
from uncertainty_toolbox.metrics_calibration import miscalibration_area

truth = np.random.default_rng(0).standard_normal(10**4)
for bins in (10, 100, 1000):
    print(bins, round(float(miscalibration_area(np.zeros(10**4), np.full(10**4, 0.5), truth, num_bins=bins)), 4))
