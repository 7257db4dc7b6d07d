import numpy as np
import pyarrow as pa

from sava_assets.assets.findings import findings, with_findings
from sava_ops.decisions.assessment import Assessment

FOUND = Assessment(
    values=np.array([0.1, 0.9, 0.9, 0.9]),
    feature_values=np.array([0.1, 0.2, 0.9, 0.2]),
    label_values=np.array([-0.3, 0.7, -0.1, 0.7]),
    suggested_labels=np.array([0, 1, 0, 1]),
    confidence=np.array([1.0, 0.9, 0.5, 0.8]),
    p_values=np.array([0.6, 0.01, 0.01, 0.01]),
    clean_probability=np.array([1.0, 0.1, 0.1, 0.1]),
    evidence=np.array([0.0, 4.0, 4.0, 4.0]),
    image_evidence=np.array([0.0, 0.5, 4.0, 0.5]),
    expected_bad=np.array([-0.05, 1.1, 1.0, 1.1]),
)
TABLE = with_findings(pa.table({"label": ["cat", "cat", "cat", "elk"]}), FOUND, ["cat", "dog"], known={"cat", "dog"})


def test_the_reason_says_whether_it_is_the_image_the_label_or_an_unknown_class():
    assert TABLE["reason"].to_pylist() == [
        "",
        "label disagrees with its neighbours: cat → dog",
        "unlike anything in the reference set",
        "the reference set has no class elk: looks like dog",
    ]
    assert TABLE["suggested_label"].to_pylist() == ["cat", "dog", "cat", "dog"]


def test_columns_are_read_back_as_they_were():
    again = findings(TABLE)
    for name in vars(FOUND):
        np.testing.assert_array_equal(getattr(again, name), getattr(FOUND, name))


def test_where_nothing_is_doubtful_there_is_no_reason():
    calm = Assessment(**{**vars(FOUND), "p_values": np.ones(4)})
    table = with_findings(pa.table({"label": ["cat", "cat", "cat", "elk"]}), calm, ["cat", "dog"], known={"cat", "dog"})
    assert set(table["reason"].to_pylist()) == {""}
