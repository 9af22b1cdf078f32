"""Checkpoint files: what is damaged, hostile or of another shape is refused, in a sentence."""

import json
import pickle

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from trainable.checkpoint import _digest, load_network, load_state, save_network, save_state
from trainable.config import NetworkConfig, TrainConfig
from trainable.network import Network
from trainable.optim import optimizers

CONFIG = NetworkConfig(2, n_components=(2, 3), n_layers=1, width=8, n_heads=2)


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    save_network(tmp_path / "model.safetensors", Network(CONFIG), {"preset": "none"})
    return tmp_path / "model.safetensors"


def parts(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def signed(path, tensors, text):
    """The file again, with a digest that is right."""
    save_file(tensors, path, {"tgmm": text, "sha256": _digest(text, tensors)})


def test_a_network_comes_back(path):
    network, about = load_network(path)
    torch.manual_seed(0)
    wanted = Network(CONFIG).state_dict()
    assert network.config == CONFIG
    assert about == {"preset": "none"}
    assert all(torch.equal(value, wanted[name]) for name, value in network.state_dict().items())


def test_truncated_files_are_refused(path):
    data = path.read_bytes()
    for end in (0, 4, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match=r"not a readable checkpoint|holds no TGMM"):
            load_network(path)


def test_every_flipped_bit_is_seen(path):
    data = path.read_bytes()
    for place in range(0, len(data), 997):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(ValueError, match=r"damaged|not a readable|holds no TGMM|usable"):
            load_network(path)


def test_pickles_are_not_run(path, tmp_path):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    path.write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_network(path)
    torch.save({"state": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="not a readable checkpoint"):
        load_network(path)
    assert not (tmp_path / "owned").exists()


def test_wrong_shapes_names_and_numbers_are_refused(path):
    tensors, metadata = parts(path)
    text = metadata["tgmm"]
    for change, message in (
        ({"readin.weight": torch.zeros(8, 9)}, r"readin.weight has shape \(8, 9\)"),
        ({"readin.bias": torch.full((8,), float("nan"))}, "not finite"),
        ({"extra": torch.zeros(1)}, "extra is missing or too much"),
    ):
        signed(path, tensors | change, text)
        with pytest.raises(ValueError, match=message):
            load_network(path)
    del tensors["readin.bias"]
    signed(path, tensors, text)
    with pytest.raises(ValueError, match=r"readin.bias is missing"):
        load_network(path)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 99},
        {"network": {}},
        {"network": {"dim": -1}},
        {"network": None},
        {"network": {"code": "x"}},
    ],
)
def test_unusable_configurations_are_refused(path, change):
    tensors, metadata = parts(path)
    signed(path, tensors, json.dumps(json.loads(metadata["tgmm"]) | change))
    with pytest.raises(ValueError, match="does not hold a usable TGMM"):
        load_network(path)


def test_missing_files_and_other_networks_are_named(path, tmp_path):
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        load_network(tmp_path / "none.safetensors")
    other = Network(NetworkConfig(3, n_components=(2, 3), n_layers=1, width=8, n_heads=2))
    every = optimizers(other, TrainConfig((3,), 1))
    save_state(tmp_path / "state.safetensors", other, every, {})
    network = Network(CONFIG)
    every = optimizers(network, TrainConfig((2,), 1))
    with pytest.raises(ValueError, match="is of another network"):
        load_state(tmp_path / "state.safetensors", network, every)
