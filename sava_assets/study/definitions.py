"""Wiring of the study: a code location beside the chain's, whose assets it reads and does not define."""

from collections.abc import Sequence
from typing import cast

import dagster as dg

from sava_assets.freshness.computation import SHARDS
from sava_assets.freshness.condition import asset_key
from sava_assets.freshness.rules import NAME, RULES
from sava_assets.home.resources import Workspace, default_home
from sava_assets.study import figures, grid
from sava_assets.study.cells import STUDIES

STUDY = cast("Sequence[dg.AssetsDefinition]", dg.load_assets_from_modules([grid, figures], key_prefix=NAME))
READ = [
    dg.AssetSpec(asset_key(name), partitions_def=SHARDS if RULES[name].sharded else None)
    for name in RULES
    if any(name in study.reads for study in STUDIES.values())
]
"""Assets of the chain that the study reads."""

defs = dg.Definitions(
    assets=[*STUDY, *READ],
    resources={"workspace": Workspace(home=default_home())},
    executor=dg.in_process_executor,
)
