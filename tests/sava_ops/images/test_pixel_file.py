from dataclasses import replace

import pytest
import torch

from sava_ops.images.classifier import (
    Comparison,
    LabelledImages,
    TrainingConfig,
    TrainingSet,
    compare_training_sets,
    predict,
    resnet18,
    train,
)
from sava_ops.images.encoder import train_encoder
from sava_ops.images.pixel_file import PixelFile
from tests.pictures import scans

pytestmark = pytest.mark.long
SHORT = TrainingConfig(steps=3, batch_size=4, learning_rate=0.01)


@pytest.fixture
def both(tmp_path) -> tuple[PixelFile, torch.Tensor, torch.Tensor]:
    """The same images in a file and in memory, and their labels."""
    images, labels = scans(12)
    return PixelFile.write(tmp_path, images.split(5), size=8), images, labels


def test_a_file_is_drawn_from_as_a_tensor_is(both):
    file, images, _ = both
    assert len(file) == 12
    assert file.shape == tuple(images.shape)
    for rows in (torch.tensor([7, 0, 7, 11]), torch.arange(12), torch.empty(0, dtype=torch.int64)):
        assert torch.equal(file[rows], images[rows])
    assert [len(piece) for piece in file.split(5)] == [5, 5, 2]
    assert torch.equal(torch.cat([*file.split(5)]), images)


def test_a_part_of_a_part_is_that_of_the_tensor(both):
    file, images, _ = both
    first, second = torch.tensor([9, 4, 4, 1, 0]), torch.tensor([4, 1, 3])
    part = file.part(first).part(second)
    assert part.shape == (3, 3, 8, 8)
    assert torch.equal(torch.cat([*part.split(2)]), images[first][second])


def test_a_file_that_ends_too_early_is_not_read_as_if_it_did_not(both):
    file, _, _ = both
    file.pixels.file.truncate(11 * 3 * 8 * 8 + 1)
    assert len(file[torch.arange(11)]) == 11
    with pytest.raises(EOFError, match=r"the file of pixels in .* ends before image 11"):
        file[torch.tensor([11])]


def test_a_file_has_no_name_and_is_closed_with_the_last_part_of_it(tmp_path):
    whole = PixelFile.write(tmp_path, [scans(4)[0]], size=8)
    assert not [*tmp_path.iterdir()]
    part, file = whole.part(torch.tensor([3])), whole.pixels.file
    del whole
    assert len([*part.split(1)]) == 1
    del part
    assert file.closed


def state(model: torch.nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


@pytest.mark.parametrize("augmentation", ["none", "crop", "crop+flip"])
def test_training_from_a_file_gives_the_same_weights_and_outputs(both, augmentation):
    file, images, labels = both
    config = replace(SHORT, augmentation=augmentation)
    models = [train(resnet18(4, stem="tiny", seed=0), x, labels, config=config, seed=3) for x in both[:2]]
    assert state(models[0]) == state(models[1])
    assert torch.equal(predict(models[0], file, batch_size=5), predict(models[1], images, batch_size=5))
    encoders = [train_encoder(x, labels, classes=4, config=config, seed=3) for x in both[:2]]
    assert state(encoders[0].network) == state(encoders[1].network)


def test_a_comparison_from_files_gives_the_same_accuracies(both, tmp_path):
    file, images, labels = both
    judges, truth = scans(40, seed=1)
    stored = PixelFile.write(tmp_path, [judges], size=8)
    sets = {
        "all": TrainingSet(torch.arange(12)),
        "some": TrainingSet(torch.tensor([8, 1, 2, 3, 3]), labels=torch.tensor([0, 1, 2, 3, 0])),
        "weighted": TrainingSet(torch.arange(10), weights=torch.linspace(0, 1, 10)),
    }
    comparison = Comparison(4, SHORT, seeds=(0, 1))
    found = [
        compare_training_sets(LabelledImages(pool, labels), sets, LabelledImages(test, truth), comparison=comparison)
        for pool, test in ((file, stored), (images, judges))
    ]
    assert found[0] == found[1]
