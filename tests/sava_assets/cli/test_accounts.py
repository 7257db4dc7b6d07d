"""Where every file and row is: what no one uses is not counted as used."""

import pyarrow as pa
import pytest

from sava_assets.assets.ingest import QUARANTINE
from sava_assets.cli.accounts import accounts
from sava_assets.freshness.rules import inputs, key
from sava_assets.freshness.survey import Survey
from sava_assets.home.resources import Workspace
from sava_assets.home.result import Output, table_file


@pytest.mark.parametrize(
    ("classes", "used"), [(["east"], True), (["West"], False), (["0"], False), (["east", "EAST"], False)]
)
def test_a_set_whose_classes_nobody_judges_is_not_used(tmp_path, classes, used):
    home = Workspace(home=str(tmp_path))
    (tmp_path / "sava.yaml").write_text("settle_seconds: 0\noverlap: refuse\n")
    for folder in ("landing/s", "reference"):
        (tmp_path / folder / "east").mkdir(parents=True)
        (tmp_path / folder / "east" / "a.png").write_bytes(b"")
    for asset, shard, own in (("raw_images", "s", classes), ("reference_images", None, ["east", "west"])):
        named = inputs(asset, home, ["s"], shard)
        numbers = {"images": 3, "quarantined": 1, "classes": own}
        files = {"quarantine.parquet": table_file(pa.Table.from_pylist([{"id": "x", "reason": "y"}], QUARANTINE))}
        home.store.set_current(
            home.store.save(asset, key(named), Output(files, numbers, data_version="0"), named), shard
        )
    line = accounts(Survey(home, ["s"])).line
    if used:
        assert line == "8 files and rows: 6 used + 2 quarantined + 0 passed over"
    else:
        assert (
            line == "4 files and rows: 3 used + 1 quarantined + 0 passed over; not read yet or refused: raw_images[s]"
        )
