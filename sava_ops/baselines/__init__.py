"""Other ways to rank suspicious training points, one a file, all with one signature:

score(train: Points, reference: Points) -> (N,) scores, high = prune first
"""

from sava_ops.baselines import knn_shapley, logistic_regression, mean_discrepancy, nearest_neighbours, prototypes

METHODS = {
    "logistic regression": logistic_regression.score,
    "50-NN vote": nearest_neighbours.score,
    "KNN-Shapley": knn_shapley.score,
    "MMD": mean_discrepancy.score,
    "prototypes": prototypes.score,
}
"""By the name that tables print."""
