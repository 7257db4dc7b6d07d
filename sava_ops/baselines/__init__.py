"""Other ways to rank suspicious training points, one a file, all with one signature:

score(train: Points, reference: Points) -> (N,) scores, high = prune first
"""
