import numpy as np
from cleanlab.experimental.label_issues_batched import find_label_issues_batched
from cleanlab.filter import find_label_issues

probs = np.random.default_rng(0).dirichlet(np.ones(4) / 2, 2000)
labels = (probs.cumsum(1) < np.random.default_rng(1).random((2000, 1))).sum(1).clip(max=3)
print(find_label_issues(labels, probs, n_jobs=1).sum(), len(find_label_issues_batched(labels, probs, n_jobs=1)))
