"""A GPU finds what a processor finds: run where there is one, with `pytest tests/sava_ops`."""

from dataclasses import fields

import numpy as np
import pytest
import torch

from sava_ops import ValuationConfig, value_points
from sava_ops.images.classifier import resnet18
from sava_ops.images.encoder import Encoder, InputFormat, embed
from sava_ops.reference.both_sides import hashed_folds
from sava_ops.valuation import Valuation
from tests.toy import clouds, mislabelled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
PRESETS = [ValuationConfig(batch_size=200), ValuationConfig.paper(), ValuationConfig.lava()]
ids = ["default", "paper", "LAVA"]


@pytest.mark.parametrize("config", PRESETS, ids=ids)
def test_values_are_those_of_a_processor(config):
    found = [_valued(np.float64, config, device) for device in ("cpu", "cuda")]
    for field in fields(Valuation):
        ours, theirs = (getattr(side, field.name) for side in found)
        if field.name.endswith("_batches"):
            assert [rows.tolist() for rows in ours] == [rows.tolist() for rows in theirs]
        else:
            # Where all is told apart the regressions' optimum is flat, and rounding says where on it they stop.
            np.testing.assert_allclose(ours, theirs, rtol=0.05, atol=0.05, err_msg=field.name)


@pytest.mark.parametrize("config", PRESETS, ids=ids)
def test_single_precision_ranks_as_double(config):
    single, double = (_valued(dtype, config, "cuda").values for dtype in (np.float32, np.float64))
    assert np.corrcoef(single, double)[0, 1] > 0.9999


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_image_has_the_same_fold_on_either(dtype):
    features = torch.randn(500, 33, generator=torch.Generator().manual_seed(0), dtype=dtype)
    assert hashed_folds(features, 5).tolist() == hashed_folds(features.cuda(), 5).tolist()


def test_embeddings_are_those_of_a_processor():
    encoder = Encoder(resnet18(10, stem="small", seed=0).eval(), InputFormat(32, "small"))
    pixels = torch.randint(0, 256, (64, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    there, here = (embed(encoder, pixels, device=device).double().cpu() for device in ("cuda", "cpu"))
    # bfloat16 on either side: eight bits of each number.
    assert torch.cosine_similarity(here, there).min() > 0.999


def _valued(dtype: type, config: ValuationConfig, device: str) -> Valuation:
    (features, labels), reference = clouds(600, seed=2, dtype=dtype), clouds(300, seed=1, dtype=dtype)
    given, _ = mislabelled(labels, share=0.3, classes=3)
    return value_points(features, given, *reference, config=config, device=device)
