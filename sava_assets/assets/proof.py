"""The proof that a curation trains a better classifier: by linear probes in seconds, by whole networks when asked."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sava_assets.assets import plots
from sava_assets.assets.report import write_page
from sava_assets.assets.trainings import Trainings, trained
from sava_assets.formats.columns import places_of
from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.freshness.history import join_accuracy
from sava_assets.freshness.overlap import SET_ASIDE, refuse_near_images, refuse_shared_images
from sava_assets.freshness.promotion import PROMOTED
from sava_assets.freshness.proof import is_of
from sava_assets.home.result import Output, Result, table_file, tensor_file
from sava_assets.home.store import TRAININGS
from sava_ops.decisions.pruning import keep_random
from sava_ops.errors import BadInput
from sava_ops.images.classifier import Comparison, TrainingSet
from sava_ops.images.probe import LabelledFeatures, probe_training_sets
from sava_ops.images.training import TrainingConfig

PROBE_SEEDS = (0, 1, 2)


def _remember(run: Run, result: Result) -> None:
    """In the history, and on the page of the curation that it was measured on."""
    join_accuracy(run.workspace, result)
    pruned, page = (run.workspace.store.current(name) for name in ("pruned_dataset", "curation_report"))
    if pruned and page and is_of(result, pruned) and is_of(page, pruned):
        write_page(run.workspace, page)


@computed(group="curation", kinds={"pytorch"}, publish=_remember)
def probe_accuracy(run: Run) -> Output:
    """Test accuracy of linear probes, the last layer alone trained on the stored embeddings of all data, of a random
    subset, of what is kept, of that with the relabelled images, and of all data weighted by how probably clean they
    are."""
    _refuse_shared(run)
    embedded, test = run.read_shards("embeddings"), run.read("test_embeddings")
    points, classes = _points(run, embedded), _classes(run, test)
    pool = LabelledFeatures(_on_disk(run, embedded), torch.from_numpy(places_of(points["label"], classes)))
    found = probe_training_sets(
        pool,
        _training_sets(points, classes),
        LabelledFeatures(
            test.tensors("features.safetensors")["features"],
            torch.from_numpy(places_of(test.table("points.parquet", ["label"])["label"], classes)),
        ),
        classes=len(classes),
        seeds=PROBE_SEEDS,
        device=run.workspace.device,
        progress=run.progress,
    )
    if not found.converged:
        run.log.warning("the probes did not converge: their accuracies are those of an earlier step")
    numbers = {"converged": found.converged, "seeds": len(PROBE_SEEDS), "test_images": test.numbers["points"]}
    return _output(run, found.accuracies, numbers)


@computed(group="curation", kinds={"pytorch"}, publish=_remember)
def classifier_accuracy(run: Run) -> Output:
    """Test accuracy of ResNet18, with equal steps, trained on all data, on a random subset, on what is kept, on that
    with the relabelled images, and on all data weighted by how probably clean they are."""
    _refuse_shared(run)
    training, test = run.read_shards("raw_images"), run.read("test_images")
    points, classes = _points(run, training), _classes(run, test)
    knobs = run.knobs.classifier
    trainings = Trainings(
        run.title,
        tuple(training.values()),
        test,
        classes,
        _training_sets(points, classes),
        Comparison(len(classes), TrainingConfig(**vars(knobs.training)), tuple(range(knobs.seeds))),
        run.knobs.encoder.image_size,
        run.workers.device,
        scratch=run.scratch if run.workers.here else None,
    )
    accuracies, parts = _trained(run, trainings)
    return _output(run, accuracies, {"seeds": knobs.seeds, "test_images": test.numbers["images"]}, parts)


def _trained(run: Run, trainings: Trainings) -> tuple[dict[str, list[float]], list[tuple[str, str]]]:
    """Accuracies of each set, one per seed, and where they are kept: each is stored when it is there, so that a crash
    loses one training, and sets that another cut leaves as they were are not trained on again."""
    seeds, steps = trainings.comparison.seeds, trainings.comparison.config.steps
    keys = {(name, seed): trainings.key(name, seed) for seed in seeds for name in trainings.sets}
    stored = {key: sound_tensors(run, TRAININGS, key) for key in keys.values()}
    found = {key: float(tensors["accuracy"]) for key, tensors in stored.items() if tensors}
    missing = {key: training for training, key in keys.items() if key not in found}
    if run.workers.here:
        step, total = count(1), len(missing) * steps
        trainings = replace(trainings, progress=lambda *_: run.progress(next(step), total))
    made = run.workers.map(trained, trainings, missing.values())
    for done, (key, accuracy) in enumerate(zip(missing, made, strict=True), start=1):
        found[key] = accuracy
        output = Output({"tensors.safetensors": tensor_file({"accuracy": torch.tensor(accuracy, dtype=torch.float64)})})
        run.workspace.store.save(TRAININGS, key, output)
        log_work("training")
        if not run.workers.here:
            run.progress(done * steps, len(missing) * steps)
    accuracies = {name: [found[keys[name, seed]] for seed in seeds] for name in trainings.sets}
    return accuracies, [(TRAININGS, key) for key in found]


def _refuse_shared(run: Run) -> None:
    """What a classifier learned from must not judge it."""
    pool = run.read_shards("raw_images") if run.knobs.overlap == "refuse" else {}
    judges = {"the reference set": run.read("reference_images")}
    refuse_shared_images(pool | judges, "test", run.read("test_images"))
    refuse_near_images(run.workspace.store, pool, "test", run.read("test_images"))


def _points(run: Run, shards: Mapping[str, Result]) -> pa.Table:
    """The decisions, in the order of the shards."""
    points = run.read("pruned_dataset").table("points.parquet")
    ids = [c for r in shards.values() for c in r.table("points.parquet", ["id"])["id"].chunks]
    if points["id"] != pa.chunked_array(ids, pa.string()):
        raise BadInput("pruned_dataset is older than the shards: materialize pruned_dataset first")
    return points


def _classes(run: Run, test: Result) -> list[str]:
    labels = run.read("pruned_dataset").table("points.parquet", ["label"])["label"]
    return sorted({*labels.unique().to_pylist(), *test.numbers["classes"]})


def _output(
    run: Run,
    accuracies: Mapping[str, list[float]],
    numbers: Mapping[str, object],
    parts: Sequence[tuple[str, str]] = (),
) -> Output:
    rows = [{"set": n, "seed": s, "accuracy": a} for n, per_seed in accuracies.items() for s, a in enumerate(per_seed)]
    return Output(
        files={"accuracies.parquet": table_file(pa.Table.from_pylist(rows))},
        numbers={f"{n}_{what}": float(f(a)) for n, a in accuracies.items() for what, f in _SUMMARY.items()}
        | dict(numbers)
        | {"curation": run.read("pruned_dataset").key},
        pictures={"accuracy": plots.bars(accuracies, "test accuracy")},
        data_version=run.content_version,
        parts=parts,
    )


_SUMMARY = {"mean": np.mean, "std": np.std}


def _on_disk(run: Run, embedded: Mapping[str, Result]) -> Tensor:
    """Features of all shards as one tensor that lies in a file of the run: no more than a shard of them is held."""
    total, filled = sum(result.numbers["points"] for result in embedded.values()), 0
    stored: np.memmap | None = None
    for result in embedded.values():
        features = result.arrays("features.safetensors")["features"]
        if stored is None:
            shape = (total, features.shape[1])
            stored = np.memmap(run.scratch / "features", dtype=features.dtype, mode="w+", shape=shape)
        stored[filled : filled + len(features)] = features
        filled += len(features)
    assert stored is not None, "there is no curation without a shard"
    return torch.from_numpy(stored)


def _training_sets(points: pa.Table, classes: list[str]) -> dict[str, TrainingSet]:
    keep = points["keep"].to_numpy(zero_copy_only=False)
    inside = np.not_equal(points["action"].to_pylist(), SET_ASIDE).nonzero()[0]
    # Another seed than any batch's or model's: the control must not share their chance.
    control = inside[keep_random(len(inside), pruned=int((~keep[inside]).sum()), seed=2**31)]
    number = {name: i for i, name in enumerate(classes)}
    label = places_of(points["label"], classes)
    # A suggested label is one of the reference set, which the test set may lack; that of a person goes before.
    pairs = zip(points["curated_label"].to_pylist(), points["suggested_label"].to_pylist(), strict=True)
    suggested = np.array([number.get(curated or offered, -1) for curated, offered in pairs])
    relabel = np.isin(points["action"].to_pylist(), ["relabel", PROMOTED]) & (suggested >= 0)
    mended = torch.from_numpy(np.where(relabel, suggested, label))
    rows = {
        name: torch.from_numpy(mask.nonzero()[0]) for name, mask in {"pruned": keep, "either": keep | relabel}.items()
    }
    everything, weights = torch.from_numpy(inside), points["clean_probability"].to_numpy()[inside].astype(np.float32)
    return {
        "all": TrainingSet(everything),
        "random": TrainingSet(torch.from_numpy(control)),
        "pruned": TrainingSet(rows["pruned"]),
        "relabelled": TrainingSet(rows["either"], labels=mended[rows["either"]]),
        "reweighted": TrainingSet(everything, weights=torch.from_numpy(weights)),
    }
