"""Wiring: which assets, checks, sensors, schedules and resources there are. The study has its own."""

from collections.abc import Sequence
from typing import cast

import dagster as dg

from sava_assets.assets import (
    batches,
    calibration,
    checks,
    curation,
    decisions,
    features,
    ingest,
    near_copies,
    proof,
    publication,
    report,
    transport,
)
from sava_assets.freshness.rules import NAME
from sava_assets.freshness.sensors import automation, landing, lost_runs, recurate, recurate_job
from sava_assets.home.resources import Workspace, default_home
from sava_assets.review.notice_sensors import notices

MODULES = [ingest, features, batches, calibration, transport, near_copies, decisions, curation]
MODULES += [publication, report, proof]
ASSETS = cast("Sequence[dg.AssetsDefinition]", dg.load_assets_from_modules(MODULES, key_prefix=NAME))
CHECKS = dg.load_asset_checks_from_modules([checks], asset_key_prefix=NAME)

defs = dg.Definitions(
    assets=ASSETS,
    asset_checks=CHECKS,
    jobs=[recurate_job],
    sensors=[landing, automation, lost_runs, notices],
    schedules=[recurate],
    resources={"workspace": Workspace(home=default_home())},
    executor=dg.in_process_executor,
)
