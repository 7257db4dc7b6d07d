"""What is known before any pair is solved: the reference images valued, and the calibration that all rows share."""

from dataclasses import fields

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from sava_assets.assets import plots
from sava_assets.assets.batches import NOTHING_LEFT, class_ids, inside_batches, points_of
from sava_assets.assets.findings import with_findings
from sava_assets.formats.names import in_markdown
from sava_assets.freshness.computation import Run, computed
from sava_assets.freshness.rules import class_names
from sava_assets.home.result import Output, table_file, tensor_file
from sava_ops.calibration import Calibration, calibrate, calibration_rows
from sava_ops.errors import BadInput
from sava_ops.forecast import refuse_too_many_classes
from sava_ops.inputs import as_points
from sava_ops.ot.cost import Points
from sava_ops.reference.density_ratio import DensityRatio
from sava_ops.reference.discriminant import Discriminant
from sava_ops.reference.label_noise import LabelNoise
from sava_ops.trust import suspicious, value_reference

CALIBRATION_POINTS = 16_384


@computed(group="reference", kinds={"pytorch"})
def reference_values(run: Run) -> Output:
    """Each reference image valued against the others: those that should not judge, with the reason."""
    embedded, config = run.read("reference_embeddings"), run.knobs.valuation
    points, classes = embedded.table("points.parquet"), embedded.numbers["classes"]
    features, labels = embedded.tensors("features.safetensors")["features"], class_ids(embedded, classes)
    refuse_too_many_classes(0, len(labels), classes=len(classes), width=features.shape[1], device=run.workspace.device)
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
    device = run.workspace.device
    reference = points_of(run, run.read("reference_embeddings"), classes, side="reference", device=device)
    takes = refuse_too_many_classes(
        len(train), len(reference), classes=len(classes), width=train.features.shape[1], device=device
    )
    run.log.info(f"{len(classes):,} classes: about {takes.seconds:,.0f} s and {takes.bytes / 1e9:.1f} GB of memory")
    made = calibrate(train, reference, classes=len(classes), config=run.knobs.valuation)
    tensors = {
        "label_distances": made.label_distances,
        "scale": torch.tensor(made.scale, dtype=torch.float64),
        "sample_features": made.sample.features,
        "sample_labels": made.sample.labels,
        "column_scales": made.column_scales,
        **vars(made.discriminant),
        **vars(made.label_noise),
        **vars(made.density_ratio),
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
            "label_noise_inverse_penalty": float(made.label_noise.joint_inverse_penalty),
            "label_noise_converged": bool(made.label_noise.joint_converged),
            "label_noise_explained": float(made.label_noise.explained),
            "density_ratio_converged": bool(made.density_ratio.side_converged),
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


def _calibration_sample(run: Run, classes: list[str]) -> Points:
    """A bounded sample over all shards."""
    shards = run.read_shards("embeddings")
    labels = [class_ids(result, classes) for result in shards.values()]
    config = run.knobs.valuation
    inside = np.concatenate([inside_batches(run, shard, result) for shard, result in shards.items()]).nonzero()[0]
    if not len(inside):
        raise BadInput(NOTHING_LEFT)
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


def calibration_of(tensors: dict[str, Tensor], device: str) -> Calibration:
    moved = {name: tensor.to(device) for name, tensor in tensors.items()}
    return Calibration(
        label_distances=moved["label_distances"],
        scale=float(moved["scale"]),
        sample=Points(moved["sample_features"], moved["sample_labels"]),
        discriminant=Discriminant(**{field.name: moved[field.name] for field in fields(Discriminant)}),
        label_noise=LabelNoise(**{field.name: moved[field.name] for field in fields(LabelNoise)}),
        density_ratio=DensityRatio(**{field.name: moved[field.name] for field in fields(DensityRatio)}),
        column_scales=moved["column_scales"],
    )
