"""The paper's comparisons as assets (SAVA §5, App. G): every corruption × every method, on a pool with true labels.

    raw_images, embeddings ─ corrupted_pool[corruption] ─ method_scores[corruption × method] ─ detection
                                        │                          └─ pruning_curves[corruption × method] ─ pruning
                                        └─ detection_by_size, incremental_learning, sensitivity, transport_example

The home is an ordinary one whose shards are clean. Methods see features and labels of the corrupted pool and the
reference set; accuracy is measured on the test set, which chooses nothing. What is due is what the store does not hold.

`corruptions` says what is done to the pool, `cells` what each asset reads and how it runs, `grid` holds the assets over
all corruptions and methods, `figures` those that look at one corruption closely, `report` writes the page.
"""
