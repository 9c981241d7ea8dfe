"""Retrieval: is the nearest other image of the same class, and does an uncertainty know when it is not?

    found = retrieved(features, labels)   # (n,) true or false, leave one out
    found.mean()                          # Recall@1
    r_auroc(uncertainty, found)           # 0.5 by chance, 1 if every miss is more uncertain than every hit

R-AUROC needs no classifier, so it says how an uncertainty does on classes that nothing was trained on.
"""

from uqlib.metrics.retrieval.neighbours import Neighbours, nearest_neighbours
from uqlib.metrics.retrieval.recall import abstained_recall, r_auroc, recall_at_1, retrieved

__all__ = ["Neighbours", "abstained_recall", "nearest_neighbours", "r_auroc", "recall_at_1", "retrieved"]
