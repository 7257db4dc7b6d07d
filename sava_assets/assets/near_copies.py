"""Images of the pool that look nearly alike, found once for each pair of shards."""

from collections.abc import Iterator
from hashlib import sha256
from itertools import combinations_with_replacement

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from sava_assets.freshness.computation import Run, computed, log_work, sound_tensors
from sava_assets.freshness.near import LOOKS, candidate_threshold, looks_of, threshold
from sava_assets.freshness.rules import RULES
from sava_assets.home.result import Output, Result, digest, table_file, tensor_file
from sava_assets.home.store import NEAR_PAIRS
from sava_ops.decisions.copies import ALONE, of_several
from sava_ops.decisions.near_copies import RATE, Hashes, Pairs, clusters, near_forest


@computed(group="training", kinds={"numpy"})
def near_copies(run: Run) -> Output:
    """Training images that look nearly alike: resized, recompressed, cut a little or mirrored. How near is near, the
    reference images say that are known to be different. A new shard costs its own pairs only."""
    points = {shard: _looks(result) for shard, result in run.read_shards("raw_images").items()}
    shards = {shard: looks_of(table)[1] for shard, table in points.items()}
    hashed = sum(map(len, points.values()))
    store, reference = run.workspace.store, run.read("reference_images")
    within, candidates = threshold(store, reference, among=hashed - 1), candidate_threshold(store, reference)
    pairs = _Pairs(run, shards, candidates)
    near = [ends[far <= within] for ends, far in pairs.all()]
    groups = clusters(hashed, np.concatenate([np.empty((0, 2), dtype=np.int64), *near]))
    every = pa.concat_tables(points.values())
    # Where all pixels are equal, they are exact copies, and known as such.
    groups = of_several(groups, every["pixel_hash"].combine_chunks().dictionary_encode().indices.to_numpy())
    found = every.select(["id", LOOKS]).append_column("group", pa.array(groups)).filter(pa.array(groups != ALONE))
    return Output(
        files={"near.parquet": table_file(found)},
        numbers={
            "hashed": hashed,
            "not_hashed": sum(result.numbers["images"] for result in run.read_shards("raw_images").values()) - hashed,
            "near_images": len(found),
            "near_groups": int(groups.max(initial=ALONE)) + 1,
            "threshold_bits": within,
            "chance_rate": RATE,
        },
        notes={"pairs_of_shards_compared": pairs.computed},
        data_version=digest([within, found["id"].to_pylist(), found["group"].to_pylist()] if len(found) else []),
        parts=pairs.keys,
    )


class _Pairs:
    """Candidates for near images of every two shards and of every shard, from the store where they are there. Which of
    them are near depends on the size of the pool, and is nothing that is stored: a pool that grows or shrinks compares
    no two shards again."""

    def __init__(self, run: Run, shards: dict[str, Hashes], within: int) -> None:
        self.run, self.within, self.computed = run, within, 0
        self.shards = shards if within >= 0 else {}
        self.keys: list[tuple[str, str]] = []

    def all(self) -> Iterator[Pairs]:
        """Rows among the hashed images of all shards, in order, and distances."""
        starts = dict(zip(self.shards, np.cumsum([0, *map(len, self.shards.values())]), strict=False))
        # Of what images look like alone: another label compares no image again.
        looks = {shard: sha256(hashes.tobytes()).hexdigest() for shard, hashes in self.shards.items()}
        both = list(combinations_with_replacement(self.shards, 2))
        for done, (one, other) in enumerate(both, start=1):
            key = digest([RULES["near_copies"].code_version, self.within, looks[one], looks[other], one == other])
            self.keys.append((NEAR_PAIRS, key))
            ends, far = self._stored(key) or self._compared(key, one, other)
            yield ends + np.array([starts[one], starts[other]]), far
            self.run.progress(done, len(both))

    def _stored(self, key: str) -> Pairs | None:
        known = sound_tensors(self.run, NEAR_PAIRS, key)
        return (known["pairs"].long().numpy(), known["distances"].numpy()) if known else None

    def _compared(self, key: str, one: str, other: str) -> Pairs:
        others = None if one == other else self.shards[other]
        ends, far = near_forest(self.shards[one], others, within=self.within)
        tensors = {"pairs": torch.from_numpy(ends).int(), "distances": torch.from_numpy(far)}
        self.run.workspace.store.save(NEAR_PAIRS, key, Output({"tensors.safetensors": tensor_file(tensors)}))
        log_work(f"near_pairs[{one},{other}]")
        self.computed += 1
        return ends, far


def _looks(images: Result) -> pa.Table:
    """The images of a shard that have structure."""
    return images.table("points.parquet", ["id", "pixel_hash", LOOKS]).filter(pc.field(LOOKS).is_valid())
