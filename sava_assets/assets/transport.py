"""Batches against batches: Algorithm 1, lines 1-6, with one stored row per training batch."""

from collections.abc import Iterator
from dataclasses import fields
from functools import cache, cached_property

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Bool
from torch import Tensor

from sava_assets.assets import plots
from sava_assets.assets.findings import with_findings
from sava_assets.formats.names import in_markdown
from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.freshness.overlap import refuse_shared_images
from sava_assets.freshness.rules import class_names
from sava_assets.home.result import Output, Result, digest, table_file, tensor_file
from sava_assets.home.store import BATCH_ROWS, STARTING_POTENTIALS
from sava_ops.batches import split_batches
from sava_ops.calibration import Calibration, calibrate, calibration_rows
from sava_ops.errors import BadInput
from sava_ops.inputs import as_points
from sava_ops.ot.cost import Points
from sava_ops.ot.labelled_kernel import Room
from sava_ops.reference.discriminant import Discriminant
from sava_ops.reference.label_noise import LabelNoise
from sava_ops.transport import BatchRow, starting_potentials, transport_row
from sava_ops.trust import suspicious, value_reference
from sava_ops.valuation import plan_batches

PAIRS = ("costs", "marginal_errors", "sweeps", "converged", "shift")
"""What of all rows is kept together."""
_NOTHING_LEFT = "every training image is also in the reference or test set: put other images into the shards"
CALIBRATION_POINTS = 16_384


@computed(group="training", kinds={"numpy"})
def batches(run: Run) -> Output:
    """Which batch each point of a shard belongs to; a later shard changes nothing here. Images that also stand in the
    reference or test set are in none."""
    embedded = run.read("embeddings")
    return _split(run, embedded, _inside(run, run.shard or "", embedded))


@computed(group="reference", kinds={"numpy"})
def reference_batches(run: Run) -> Output:
    """Which batch each reference point belongs to."""
    embedded = run.read("reference_embeddings")
    return _split(run, embedded, np.ones(embedded.numbers["points"], dtype=bool))


@computed(group="reference", kinds={"pytorch"})
def reference_values(run: Run) -> Output:
    """Each reference image valued against the others: those that should not judge, with the reason."""
    embedded, config = run.read("reference_embeddings"), run.knobs.valuation
    points, classes = embedded.table("points.parquet"), embedded.numbers["classes"]
    features, labels = embedded.tensors("features.safetensors")["features"], _class_ids(embedded, classes)
    found = value_reference(features, labels, config=config, device=run.workspace.device)
    doubted = suspicious(found)
    points = with_findings(points, found, classes, known=classes).append_column("suspicious", pa.array(doubted))
    return Output(
        files={"points.parquet": table_file(points)},
        numbers={"points": len(points), "suspicious": int(doubted.sum())},
        pictures={"values": plots.histogram(found.values, "value (units of cost)")}
        | {"suspicious": plots.listing(points.filter(doubted).sort_by([("p_value", "ascending")]), _SHOWN)},
        data_version=run.content_version,
    )


_SHOWN = ("id", "label", "suggested_label", "p_value", "reason")


@computed(group="valuation", kinds={"pytorch"})
def label_distances(run: Run) -> Output:
    """Class-to-class transport, the scale of the costs and a starting sample: one calibration, pinned.

    Taken from a seeded sample of the shards that are here when it is computed, and kept until the reference set, the
    encoder or the list of classes changes.
    """
    classes = class_names(run.workspace, run.shards)
    train = _calibration_sample(run, classes)
    reference = _as_points(run, run.read("reference_embeddings"), classes, side="reference")
    made = calibrate(train, reference, classes=len(classes), config=run.knobs.valuation)
    tensors = {
        "label_distances": made.label_distances,
        "scale": torch.tensor(made.scale, dtype=torch.float64),
        "sample_features": made.sample.features,
        "sample_labels": made.sample.labels,
        **vars(made.discriminant),
        **vars(made.label_noise),
    }
    return Output(
        files={"calibration.safetensors": tensor_file(tensors)},
        numbers={
            "classes": classes,
            "sampled_points": len(train),
            "mean_feature_cost": made.scale,
            "discriminant_converged": bool(made.discriminant.converged),
            "discriminant_inverse_penalty": float(made.discriminant.inverse_penalty),
            "reference_labels_told": float((made.discriminant.confusion.diagonal() * made.discriminant.shares).sum()),
            "label_noise_converged": bool(made.label_noise.joint_converged),
            "label_noise_explained": float(made.label_noise.explained),
            "shards": {shard: result.data_version for shard, result in run.read_shards("embeddings").items()},
        },
        pictures={"distances": plots.matrix(made.label_distances, "training class", "reference class", classes)}
        | {"classes that the features confuse": _confusable(made.discriminant, classes)}
        | {"confused labels": _confused(made.label_noise, classes)},
        data_version=run.content_version,
    )


def _confusable(known: Discriminant, classes: list[str]) -> str:
    """Pairs of reference classes that a classifier of the features takes for each other, in plain words."""
    shares = known.confusion.T.cpu().clone().fill_diagonal_(0.0)
    return _worst(shares, classes, "{} looks like {} in {:.0%} of the cases") or "None."


def _confused(noise: LabelNoise, classes: list[str]) -> str:
    """The most frequent confusions of the pool's labels, in plain words."""
    if not noise.excess.any():
        return (
            "No class is given another one's label more often than chance would: wrong labels are taken to be uniform."
        )
    shares = noise.confusions.mean(0).cpu().fill_diagonal_(0.0)
    return _worst(shares, classes, "{} is labelled {} in {:.0%} of the cases") or "No pair is confused often."


def _worst(shares: Tensor, classes: list[str], sentence: str) -> str:
    """The largest entries (of this class, for that one) as a list."""
    order = shares.flatten().argsort(descending=True, stable=True)[:_MOST_CONFUSIONS].tolist()
    pairs = [(*divmod(place, len(classes)), float(shares.flatten()[place])) for place in order]
    names = [in_markdown(name) for name in classes]
    found = [(names[own], names[other], share) for own, other, share in pairs if share >= _LEAST_CONFUSION]
    return "\n".join(f"- {sentence.format(*line)}" for line in found)


_MOST_CONFUSIONS, _LEAST_CONFUSION = 20, 0.02


@computed(group="valuation", kinds={"pytorch"})
def batch_ot(run: Run) -> Output:
    """Transport of every training batch to every reference batch; only rows that are not stored are computed."""
    if run.knobs.overlap == "refuse":
        refuse_shared_images(run.read_shards("raw_images"), "reference", run.read("reference_images"))
    grid = _Grid(run)
    sizes = {shard: members.numbers["sizes"] for shard, _, members in grid.shards()}
    if not any(sizes.values()):
        raise BadInput(_NOTHING_LEFT)
    total, keys, kept = sum(map(len, sizes.values())), [], []
    for row_key, row in grid.rows():
        keys.append(row_key)
        kept.append({name: getattr(row, name) for name in PAIRS})
        run.progress(len(keys), total)
    pairs = {name: torch.stack([own[name] for own in kept]) for name in PAIRS}
    index = pa.table(
        {
            "shard": [shard for shard in sizes for _ in sizes[shard]],
            "batch": [batch for shard in sizes for batch in range(len(sizes[shard]))],
            "size": [size for shard in sizes for size in sizes[shard]],
            "row": keys,
        }
    )
    return Output(
        files={"pairs.safetensors": tensor_file(pairs), "rows.parquet": table_file(index)},
        numbers={
            "calibration": grid.name,
            "training_batches": len(keys),
            "reference_batches": len(grid.reference_batches),
            "pairs_not_converged": int((~pairs["converged"]).sum()),
            "largest_marginal_error": float(pairs["marginal_errors"].max()),
            "mean_sweeps": float(pairs["sweeps"].double().mean()),
            "largest_shift_of_a_part": float(pairs["shift"].max()),
        },
        notes={"rows_computed": grid.computed, "shards_left_out": sorted(set(run.shards) - set(sizes))},
        pictures={"costs": plots.matrix(pairs["costs"], "training batch", "reference batch")},
        data_version=run.content_version,
        parts=[(BATCH_ROWS, key) for key in keys],
    )


@computed(group="valuation", kinds={"numpy"})
def batch_plan(run: Run) -> Output:
    """Transport between whole batches: how much each reference batch counts for a training batch."""
    pairs, index = run.read("batch_ot"), run.read("batch_ot").table("rows.parquet")
    costs = pairs.tensors("pairs.safetensors")["costs"].double().numpy()
    sizes = run.read("reference_batches").numbers["sizes"]
    made = plan_batches(costs, index["size"].to_pylist(), sizes, run.knobs.valuation)
    tensors = {name: torch.from_numpy(getattr(made, name)) for name in ("plan", "weights", "batch_gradient")}
    return Output(
        files={"plan.safetensors": tensor_file(tensors)},
        numbers={"marginal_error": made.marginal_error, "converged": made.converged},
        pictures={"plan": plots.matrix(tensors["plan"], "training batch", "reference batch")},
    )


class _Grid:
    """The batch matrix of one run, row by row, from the store where a row is there."""

    def __init__(self, run: Run) -> None:
        self.run, self.computed, self.room = run, 0, Room()
        calibrated = run.read("label_distances")
        self.classes: list[str] = calibrated.numbers["classes"]
        self.calibration = _calibration(calibrated.tensors("calibration.safetensors"), run.workspace.device)
        points = _as_points(run, run.read("reference_embeddings"), self.classes, side="reference")
        self.reference_batches = self.calibration.batches(points, _batch_rows(run.read("reference_batches")))
        shared = ("reference_embeddings", "reference_batches", "label_distances")
        versions = [run.read(name).data_version for name in shared]
        self.name = digest([run.rule_and_knobs, self.classes, *versions])

    def rows(self) -> Iterator[tuple[str, BatchRow]]:
        """Key and row of every training batch, shard by shard."""
        for shard, features, members in self.shards():
            yield from self._rows_of(shard, features, members)

    def shards(self) -> Iterator[tuple[str, Result, Result]]:
        """Name, embeddings and batches of every shard that has both."""
        members = self.run.read_shards("batches")
        for shard, features in self.run.read_shards("embeddings").items():
            if shard not in members:
                continue
            if members[shard].numbers["embeddings"] != features.data_version:
                raise BadInput(f"batches[{shard}] are older than embeddings[{shard}]: materialize batches first")
            yield shard, features, members[shard]

    def _rows_of(self, shard: str, features: Result, members: Result) -> Iterator[tuple[str, BatchRow]]:
        """The rows of one shard; its features are read only if one is missing."""
        batch_of = cache(lambda: self._batches_of(shard, features, members))
        for number in range(members.numbers["batches"]):
            key = digest([self.name, features.data_version, members.data_version, number])
            row = read_row(self.run, key)
            if row is None:
                row = self._computed(key, batch_of()[number], turn=number)
                log_work(f"batch_row[{shard}]")
            yield key, row

    def _batches_of(self, shard: str, features: Result, members: Result) -> list[Points]:
        points = _as_points(self.run, features, self.classes, side=f"training ({shard})")
        return [points.take(torch.from_numpy(rows)) for rows in _batch_rows(members)]

    def _computed(self, key: str, batch: Points, *, turn: int) -> BatchRow:
        config = self.run.knobs.valuation
        row = transport_row(
            batch, self.reference_batches, self.starts, self.calibration, config, turn=turn, room=self.room
        )
        row = BatchRow(**{name: tensor.cpu() for name, tensor in vars(row).items()})
        self.run.workspace.store.save(BATCH_ROWS, key, Output({"tensors.safetensors": tensor_file(vars(row))}))
        self.computed += 1
        return row

    @cached_property
    def starts(self) -> list[Tensor]:
        """Starting potentials: computed for the first row of this calibration, and kept with it."""
        store, device = self.run.workspace.store, self.run.workspace.device
        if stored := sound_tensors(self.run, STARTING_POTENTIALS, self.name):
            return [stored[str(j)].to(device) for j in range(len(self.reference_batches))]
        made = starting_potentials(self.reference_batches, self.calibration, self.run.knobs.valuation)
        store.save(
            STARTING_POTENTIALS,
            self.name,
            Output({"tensors.safetensors": tensor_file({str(j): g for j, g in enumerate(made)})}),
        )
        return made


def read_row(run: Run, key: str) -> BatchRow | None:
    """A stored row of the batch matrix, if there is a sound one."""
    tensors = sound_tensors(run, BATCH_ROWS, key)
    return BatchRow(**tensors) if tensors else None


def _inside(run: Run, shard: str, embedded: Result) -> Bool[np.ndarray, " n"]:
    """The embedded points of a shard that are not set aside."""
    aside = run.set_aside(shard)
    ids = embedded.table("points.parquet", ["id"])["id"].to_pylist()
    return np.array([name not in aside for name in ids], dtype=bool)


def _split(run: Run, embedded: Result, inside: Bool[np.ndarray, " n"]) -> Output:
    """Batch number of every point, null where it is not to be in one, and the sizes of the batches."""
    points, config = embedded.table("points.parquet"), run.knobs.valuation
    rows, count = inside.nonzero()[0], int(inside.sum())
    codes = np.unique(points["label"].to_pylist(), return_inverse=True)[1][rows]
    size = config.batch_size or max(count, 1)
    parts = split_batches(codes, batch_size=size, seed=config.seed, batching=config.batching)
    numbers = np.empty(len(points), dtype=np.int32)
    for number, own in enumerate(parts):
        numbers[rows[own]] = number
    column = pa.array(numbers, mask=~inside) if count < len(points) else pa.array(numbers)
    aside = {"set_aside": len(points) - count} if count < len(points) else {}
    return Output(
        files={"points.parquet": table_file(points.append_column("batch", column))},
        numbers={"points": count, "batches": len(parts), "sizes": [len(own) for own in parts]}
        | {"embeddings": embedded.data_version}
        | aside,
    )


def _batch_rows(split: Result) -> list[np.ndarray]:
    """Rows of the points of each batch."""
    numbers = split.table("points.parquet", ["batch"])["batch"].to_numpy()
    return [(numbers == number).nonzero()[0] for number in range(split.numbers["batches"])]


def _as_points(run: Run, embedded: Result, classes: list[str], *, side: str) -> Points:
    features = embedded.tensors("features.safetensors")["features"]
    return as_points(
        features,
        _class_ids(embedded, classes),
        side=side,
        unit_norm=run.knobs.valuation.unit_norm,
        device=run.workspace.device,
    )


def _class_ids(embedded: Result, classes: list[str]) -> np.ndarray:
    number = {name: i for i, name in enumerate(classes)}
    labels = embedded.table("points.parquet", ["label"])["label"].to_pylist()
    return np.array([number[label] for label in labels], dtype=np.int64)


def _calibration_sample(run: Run, classes: list[str]) -> Points:
    """A bounded sample over all shards."""
    shards = run.read_shards("embeddings")
    labels = [_class_ids(result, classes) for result in shards.values()]
    config = run.knobs.valuation
    inside = np.concatenate([_inside(run, shard, result) for shard, result in shards.items()]).nonzero()[0]
    if not len(inside):
        raise BadInput(_NOTHING_LEFT)
    rows = inside[
        calibration_rows(
            np.concatenate(labels)[inside], size=CALIBRATION_POINTS, per_class=config.class_sample, seed=config.seed
        )
    ]
    starts = np.cumsum([0, *map(len, labels)])
    features = []
    for i, result in enumerate(shards.values()):
        own = rows[(rows >= starts[i]) & (rows < starts[i + 1])] - starts[i]
        features.append(result.tensors("features.safetensors")["features"][torch.from_numpy(own)])
    return as_points(
        torch.cat(features),
        np.concatenate(labels)[rows],
        side="training",
        unit_norm=config.unit_norm,
        device=run.workspace.device,
    )


def _calibration(tensors: dict[str, Tensor], device: str) -> Calibration:
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Calibration(
        label_distances=moved["label_distances"],
        scale=float(moved["scale"]),
        sample=Points(moved["sample_features"], moved["sample_labels"]),
        discriminant=Discriminant(**{field.name: moved[field.name] for field in fields(Discriminant)}),
        label_noise=LabelNoise(**{field.name: moved[field.name] for field in fields(LabelNoise)}),
    )
