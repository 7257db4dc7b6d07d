"""Other ways to rank suspicious training points, one a file, all with one signature:

score(train: Points, reference: Points) -> (N,) scores, high = prune first
"""

from sava_ops.baselines import (
    confident_learning,
    el2n,
    influence,
    knn_shapley,
    logistic_regression,
    mean_discrepancy,
    nearest_neighbours,
    prototypes,
    random_order,
    tracin,
    transport,
)
from sava_ops.baselines.method import Method

BOTH, TRAINING = "labels on both sides", "training labels"
PAIRS, STEPS, HEADS = "O(N M d)", "O(N d C) a step", "O(N d C) an epoch"

METHODS = {
    method.name: method
    for method in (
        Method("SAVA", transport.score, transport.memory, PAIRS, BOTH),
        Method("SAVA (label values)", transport.label_score, transport.memory, PAIRS, BOTH),
        Method("SAVA (paper)", transport.paper_score, transport.memory, PAIRS, BOTH),
        Method("SAVA (paper's annealing)", transport.annealed_score, transport.memory, PAIRS, BOTH),
        Method("SAVA (no label cache)", transport.uncached_score, transport.memory, PAIRS, BOTH),
        Method("batch-wise LAVA", transport.batchwise_lava_score, transport.memory, PAIRS, BOTH),
        Method("LAVA", transport.lava_score, transport.lava_memory, PAIRS, BOTH),
        Method("logistic regression", logistic_regression.score, logistic_regression.memory, "O(M d C) a step", BOTH),
        Method("50-NN vote", nearest_neighbours.score, nearest_neighbours.memory, PAIRS, BOTH),
        Method("KNN-Shapley", knn_shapley.score, knn_shapley.memory, "O(N M (d + log N))", BOTH),
        Method("TracInCP", tracin.score, tracin.memory, HEADS, BOTH),
        Method("influence functions", influence.score, influence.memory, STEPS, BOTH),
        Method("MMD", mean_discrepancy.score, mean_discrepancy.memory, "O(N (N + M) d)", BOTH),
        Method(
            "confident learning", confident_learning.score, confident_learning.memory, STEPS, f"{TRAINING}, cleanlab"
        ),
        Method("EL2N", el2n.score, el2n.memory, HEADS, TRAINING),
        Method("EL2N (window)", el2n.window_score, el2n.window_memory, HEADS, BOTH),
        Method("prototypes", prototypes.score, prototypes.memory, "O(N d C) a pass", TRAINING),
        Method("random", random_order.score, random_order.memory, "O(N)", "nothing"),
    )
}
"""By the name that tables print."""
