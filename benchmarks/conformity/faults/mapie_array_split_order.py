import numpy as np
from mapie.metrics.calibration import expected_calibration_error

confidence, correct = np.array([0.6, 0.7, 0.8, 0.9]), np.array([1, 1, 0, 0])
for rows in ([0, 1, 2, 3], [3, 0, 1, 2]):
    print(expected_calibration_error(correct[rows], confidence[rows], num_bins=2, split_strategy="array split"))
