import json
import os
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from sava_ops import BadInput
from sava_ops.images import classifier
from sava_ops.images.classifier import predict, resnet18
from sava_ops.images.encoder import METADATA_KEY, InputFormat, embed, load_encoder, save_encoder, train_encoder
from sava_ops.images.training import TrainingConfig
from tests.pictures import scans
from tests.shared_data import SHARED

SHORT = TrainingConfig(steps=2, batch_size=4, learning_rate=0.01)
FORMAT = {"image_size": 8, "mean": (100.0, 110.0, 120.0), "std": (50.0, 60.0, 70.0)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    """A file of bare weights, as people publish them: the last layer included, nothing about the input."""
    path = tmp_path_factory.mktemp("weights") / "plain.safetensors"
    save_file({k: v.contiguous() for k, v in resnet18(4, stem="tiny", seed=0).network.state_dict().items()}, path)
    return path


@pytest.fixture
def exact(monkeypatch):
    """No bfloat16, whatever the processor has."""
    monkeypatch.setattr(classifier, "_fast_bf16", lambda _: False)


@pytest.mark.usefixtures("exact")
def test_trained_encoder_survives_the_disk_with_its_input_format(tmp_path):
    images, labels = scans(8)
    made = train_encoder(images, labels, classes=4, config=SHORT, seed=0)
    for name in ("one", "two"):
        save_encoder(made, tmp_path / f"{name}.safetensors")
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()
    loaded = load_encoder(str(tmp_path / "one.safetensors"))
    assert loaded.input_format == made.input_format == InputFormat(8, "tiny")
    assert torch.equal(embed(loaded, images), embed(made, images))
    assert embed(loaded, images).shape == (8, 512)
    assert embed(loaded, images[:0]).shape == (0, 512)
    assert torch.equal(loaded(images), embed(loaded, images))


def test_bfloat16_features_are_the_exact_ones_rounded(plain, monkeypatch):
    images, _ = scans(16)
    made = load_encoder(str(plain), stem="tiny", **FORMAT)
    rounded, plain_ones = [], made(images).detach()
    for fast in (True, False):
        monkeypatch.setattr(classifier, "_fast_bf16", lambda _, fast=fast: fast)
        rounded.append(embed(made, images))
    assert rounded[0].dtype == rounded[1].dtype == torch.float32
    assert torch.equal(rounded[1], plain_ones)
    assert not torch.equal(rounded[0], plain_ones)
    # Eight bits of mantissa, through twenty layers.
    assert float((rounded[0] - plain_ones).abs().mean() / plain_ones.abs().mean()) < 0.02


@pytest.mark.usefixtures("exact")
def test_features_are_what_the_last_layer_reads(plain):
    images, _ = scans(5)
    model = resnet18(4, stem="tiny", seed=0)
    model.mean[:] = torch.tensor(FORMAT["mean"]).view(1, 3, 1, 1)
    model.std[:] = torch.tensor(FORMAT["std"]).view(1, 3, 1, 1)
    features = embed(load_encoder(str(plain), stem="tiny", **FORMAT), images)
    torch.testing.assert_close(model.network.fc(features), predict(model, images))


def test_loading_leaves_the_global_generator_alone(plain):
    before = torch.random.get_rng_state()
    load_encoder(str(plain), stem="tiny", **FORMAT)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {"model": s}])
def test_torch_checkpoints_are_read_whatever_wraps_them(wrap, plain, tmp_path):
    images, _ = scans(3)
    path = tmp_path / "checkpoint.pt"
    torch.save(wrap({f"module.{name}": t for name, t in load_file(plain).items()}), path)
    loaded = load_encoder(str(path), stem="tiny", **FORMAT)
    assert torch.equal(embed(loaded, images), embed(load_encoder(str(plain), stem="tiny", **FORMAT), images))


def test_half_precision_weights_without_counters_are_accepted(plain, tmp_path):
    kept = {name: t.half() for name, t in load_file(plain).items() if not name.endswith("num_batches_tracked")}
    save_file(kept, tmp_path / "half.safetensors")
    loaded = load_encoder(str(tmp_path / "half.safetensors"), stem="tiny", **FORMAT)
    assert embed(loaded, scans(2)[0]).dtype == torch.float32


def test_stem_is_read_off_the_weights(tmp_path):
    for stem, read_as in (("imagenet", "imagenet"), ("small", "small")):
        path = tmp_path / f"{stem}.safetensors"
        save_file({k: v.contiguous() for k, v in resnet18(2, stem=stem, seed=0).network.state_dict().items()}, path)
        assert load_encoder(str(path), **FORMAT).input_format.stem == read_as


class QuietFiles(SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # aiohttp's connector, at interpreter exit
def test_a_checkpoint_may_lie_behind_a_url(plain):
    server = HTTPServer(("127.0.0.1", 0), partial(QuietFiles, directory=plain.parent))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        remote = load_encoder(f"http://127.0.0.1:{server.server_port}/{plain.name}", stem="tiny", **FORMAT)
    finally:
        server.shutdown()
        server.server_close()
    local = load_encoder(str(plain), stem="tiny", **FORMAT)
    assert torch.equal(remote.network.network.conv1.weight, local.network.network.conv1.weight)


def test_an_encoder_refuses_images_of_another_size(plain):
    loaded = load_encoder(str(plain), stem="tiny", **FORMAT)
    with pytest.raises(BadInput, match="images are 16 px and the encoder takes 8 px: fit them to 8 first"):
        embed(loaded, torch.zeros(1, 3, 16, 16, dtype=torch.uint8))


def test_what_is_not_a_checkpoint_gets_one_clear_sentence(plain, tmp_path):
    def refused(name: str, message: str, **options) -> None:
        with pytest.raises(BadInput, match=message):
            load_encoder(str(tmp_path / name), **({"stem": "tiny"} | FORMAT | options))

    refused("weights.bin", r"weights.bin is not a checkpoint's name: pass 'imagenet' or a .safetensors, .pt or .pth")
    refused("absent.pt", r"the checkpoint .*absent.pt cannot be read \(.*\): name an existing file")
    (tmp_path / "cut.safetensors").write_bytes(plain.read_bytes()[:1000])
    refused("cut.safetensors", r"cut.safetensors is damaged or holds more than weights, which could run code")
    (tmp_path / "noise.pt").write_bytes(b"no checkpoint")
    refused("noise.pt", r"noise.pt is damaged or holds more than weights")
    torch.save({"conv1.weight": 3}, tmp_path / "numbers.pt")
    refused("numbers.pt", r"numbers.pt is not a state dict of tensors: save the model's state_dict")


@pytest.mark.parametrize(
    "stored", ["{", "[]", '{"stem": "tiny"}', '{"image_size": "8", "stem": "tiny", "mean": 1, "std": 1}']
)
def test_a_description_of_the_input_that_is_none_is_a_damaged_checkpoint(plain, tmp_path, stored):
    file = tmp_path / "described.safetensors"
    save_file(load_file(plain), file, {METADATA_KEY: stored})
    with pytest.raises(BadInput, match=r"described.safetensors is damaged or holds more than weights"):
        load_encoder(str(file))


@pytest.mark.parametrize("data", [b"\x80\x02c\xff\n", b"\x80\x02h\x07.", b"\x80\x02I9x\n.", b"(."])
def test_bytes_on_which_unpickling_stumbles_are_a_damaged_checkpoint(tmp_path, data):
    (tmp_path / "stumble.pt").write_bytes(data)
    with pytest.raises(BadInput, match=r"stumble.pt is damaged or holds more than weights"):
        load_encoder(str(tmp_path / "stumble.pt"))


class Evil:
    def __reduce__(self):
        return os.mkdir, ("evil",)


def test_a_pickle_that_runs_code_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": Evil()}, "evil.pt")
    with pytest.raises(BadInput, match=r"evil.pt is damaged or holds more than weights, which could run code"):
        load_encoder("evil.pt", stem="tiny", **FORMAT)
    assert not Path("evil").exists()


def test_weights_of_another_network_are_named(plain, tmp_path):
    weights = load_file(plain)
    faults = {
        "1 are missing \\(first: conv1.weight\\)": {k: v for k, v in weights.items() if k != "conv1.weight"},
        "1 are unexpected \\(first: extra\\)": weights | {"extra": torch.zeros(1)},
        "1 have another shape \\(first: layer1.0.conv1.weight\\)": weights | {"layer1.0.conv1.weight": torch.zeros(1)},
    }
    for message, content in faults.items():
        save_file(content, tmp_path / "other.safetensors")
        with pytest.raises(BadInput, match=f"is not a torchvision ResNet18: weights {message}: pass another"):
            load_encoder(str(tmp_path / "other.safetensors"), stem="tiny", **FORMAT)


def test_a_file_that_is_silent_about_its_input_is_not_guessed_at(plain, tmp_path):
    with pytest.raises(BadInput, match=r"does not say what images it was trained on: pass `image_size`, `mean`, `std`"):
        load_encoder(str(plain), stem="tiny")
    made = train_encoder(*scans(8), classes=4, config=SHORT, seed=0)
    save_encoder(made, tmp_path / "own.safetensors")
    with pytest.raises(BadInput, match="was trained with `image_size` 8, not 16: leave it out"):
        load_encoder(str(tmp_path / "own.safetensors"), image_size=16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image_size": 0, "stem": "tiny"}, "`image_size` is 0: it must be at least 1"),
        ({"image_size": 8, "stem": "huge"}, "`stem` is 'huge': it must be 'imagenet', 'small' or 'tiny'"),
        ({"image_size": 8, "stem": "tiny", "mean": (1.0,)}, "pass three numbers each, `std` above 0"),
        ({"image_size": 8, "stem": "tiny", "std": (1.0, 0.0, 1.0)}, "pass three numbers each, `std` above 0"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_input_format_refuses_what_makes_no_sense(fields, message):
    with pytest.raises(BadInput, match=message):
        InputFormat(**fields)


def test_imagenet_weights_come_from_the_cache_and_otherwise_say_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(BadInput, match=r"the ImageNet weights could not be downloaded \(.*\): connect to the network"):
        load_encoder("imagenet")


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the CIFAR-10 encoder in ../shared/data")
def test_the_shared_cifar10_encoder_tells_its_classes_apart():
    import pyarrow.parquet as pq

    from sava_ops.images.decode import decode_all

    made = load_encoder(
        str(SHARED / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors"),
        image_size=32,
        mean=(125.3, 123.0, 113.9),
        std=(63.0, 62.1, 66.7),
    )
    rows = pq.read_table(SHARED / "cifar10" / "test-00000-of-00001.parquet").slice(0, 256)
    features = embed(made, decode_all([row["bytes"] for row in rows["image"].to_pylist()], size=32))
    head = load_file(SHARED / "cifar10_encoder" / "resnet18_cifar10_first30k.safetensors")
    logits = features @ head["fc.weight"].float().T + head["fc.bias"].float()
    labels = torch.tensor(rows["label"].to_pylist())
    assert json.dumps(made.input_format.mean) == "[125.3, 123.0, 113.9]"
    assert float((logits.argmax(1) == labels).float().mean()) > 0.75
