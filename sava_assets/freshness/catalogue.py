"""A result as Dagster's catalogue knows tables: rows, columns and place, under the names that it reserves for them."""

from collections.abc import Mapping
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
from upath import UPath

from sava_assets.home.links import VERSIONS
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Result

POINTS = "points.parquet"
TABLES = (POINTS, "rows.parquet", "shown.parquet", "accuracies.parquet")
"""The table of a result that has several."""
COLUMNS = {
    "id": "of the image: shard/row or shard/path",
    "label": "the class that the image came with",
    "width": "pixels",
    "height": "pixels",
    "pixel_hash": "digest of the decoded pixels: equal ones, equal images",
    "brightness": "mean of the grey values, 0..1",
    "information": "entropy of the grey values, bits",
    "sharpness": "log of the energy of the second derivatives over that of the first",
    "quality_evidence": "what the quality of the image adds to the evidence, nats",
    "quality_reason": "what is oddest about the image; null where quality says nothing",
    "perceptual_hash": "what the image looks like, 5 views of 128 bits; null where it has no structure or is too small",
    "group": "of images that look nearly alike",
    "role": "whether the image judges (valuation, promoted) or trains the encoder",
    "shard": "that the image came with",
    "batch": "of its shard that the image is in; null where it is set aside",
    "size": "images of the batch",
    "row": "name of the row of the batch matrix in the store",
    "value": "units of cost; high = far from the reference = prune first",
    "feature_value": "what the image adds to the value, under its best label",
    "label_value": "how much better another label fits than the given one, signed",
    "suggested_label": "the label that fits best",
    "confidence": "how often such a suggestion is right for held-out reference images, 0..1",
    "p_value": "chance that there is as much evidence against a clean image",
    "clean_probability": "soft weight for training, 0..1",
    "evidence": "against the image, nats; what is decided by",
    "image_evidence": "what is left of the evidence under the best label, nats",
    "expected_bad": "its mean over a group of images estimates the group's share of bad ones",
    "reason": "in words; empty where nothing speaks against the image",
    "suspicious": "whether the reference image should rather not judge",
    "copies": "images of the pool with these pixels; 1 = no other",
    "copy_labels": "labels of the copies, where they differ",
    "near_copies": "images of the pool that look nearly like this one; 1 = no other",
    "near_copy_labels": "labels of the near copies, where they differ",
    "near_copy_of": "the image that stands for those that look nearly like it",
    "keep": "whether the image stays as it came",
    "action": "keep, drop, relabel, review, set_aside or promoted",
    "curated_label": "the label it is published under; null where it is left out",
    "decided_by": "the person who decided; null where the algorithm did",
    "decision_note": "what that person wrote",
    "algorithm_action": "what the algorithm alone would do",
    "algorithm_label": "the label that the algorithm alone would publish",
    "nearest_of_label": "rows of the nearest reference images of the given label",
    "nearest_of_suggested_label": "rows of the nearest reference images of the suggested label",
    "sample": "whether the image is in the random sample for people",
    "thumbnail": "encoded picture",
    "set": "what was trained on",
    "seed": "of the training",
    "accuracy": "on the test images, 0..1",
}
"""What is said of a column; the further ones of a shard are other people's."""


def catalogued(result: Result, workspace: Workspace, *, partition: bool = False) -> dict[str, Any]:
    """Metadata `dagster/uri` of a result and, of one with a table, `dagster/column_schema` and `dagster/row_count`, or
    `dagster/partition_row_count` of what is one `partition` of a table. Nothing of what stands for no file."""
    table = _table(result, workspace)
    place = table or next((stored.path for stored in result.files.values()), None)
    if place is None:
        return {}
    found: dict[str, Any] = {"dagster/uri": place.as_uri()}
    if table is not None:
        try:
            with table.open("rb") as stream:
                footer = pq.read_metadata(stream)
        except FileNotFoundError:  # deleted meanwhile: the next look says so, and nothing fails for what is only shown
            return found
        rows = "dagster/partition_row_count" if partition else "dagster/row_count"
        found |= {rows: footer.num_rows, "dagster/column_schema": schema_of(footer.schema.to_arrow_schema())}
    return found


def schema_of(schema: pa.Schema, told: Mapping[str, str] = COLUMNS) -> dg.TableSchema:
    """Columns, Arrow's names of their types, and what is said of them."""
    return dg.TableSchema([dg.TableColumn(each.name, str(each.type), told.get(each.name)) for each in schema])


def _table(result: Result, workspace: Workspace) -> UPath | None:
    """Where the table of a result lies; of the published version, outside the store."""
    if version := result.numbers.get("version"):
        return workspace.curated / VERSIONS / version / POINTS
    tables = [name for name in result.files if name.endswith(".parquet")]
    chosen = [name for name in TABLES if name in tables] or (tables if len(tables) == 1 else [])
    return result.files[chosen[0]].path if chosen else None
