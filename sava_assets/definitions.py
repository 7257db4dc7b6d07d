"""Wiring: which assets, checks, sensors, schedules and resources there are."""

from collections.abc import Sequence
from typing import cast

import dagster as dg

from sava_assets.assets import checks, curation, features, ingest, transport
from sava_assets.freshness.sensors import automation, landing, recurate, recurate_job
from sava_assets.home.resources import Workspace, default_home
from sava_assets.study import figures, grid

ASSETS = cast("Sequence[dg.AssetsDefinition]", dg.load_assets_from_modules([ingest, features, transport, curation]))
STUDY = cast("Sequence[dg.AssetsDefinition]", dg.load_assets_from_modules([grid, figures]))
CHECKS = dg.load_asset_checks_from_modules([checks])

defs = dg.Definitions(
    assets=[*ASSETS, *STUDY],
    asset_checks=CHECKS,
    jobs=[recurate_job],
    sensors=[landing, automation],
    schedules=[recurate],
    resources={"workspace": Workspace(home=default_home())},
    executor=dg.in_process_executor,
)
