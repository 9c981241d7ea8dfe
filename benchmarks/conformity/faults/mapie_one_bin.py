import numpy as np
from mapie.metrics.calibration import expected_calibration_error

confidence, correct = np.array([0.2, 0.9]), np.array([1, 0])
print(expected_calibration_error(correct, confidence, num_bins=1))
