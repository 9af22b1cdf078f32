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
        {"about": 3},
    ],
)
def test_unusable_configurations_are_refused(path, change):
    tensors, metadata = parts(path)
    signed(path, tensors, json.dumps(json.loads(metadata["tgmm"]) | change))
    with pytest.raises(ValueError, match="does not hold a usable TGMM"):
        load_network(path)


@pytest.mark.parametrize(
    "change",
    [
        *({"dim": value} for value in (2.5, 0, True, "2", None, [2], 10**8, 10**30)),
        *({"width": value} for value in (0, -8, 10**7, 10**30)),
        *({"n_heads": value} for value in (0, -2, 3)),
        *({"n_layers": value} for value in (0, 2, 10**9)),
        *({"n_components": value} for value in ([], [2, 2], [2, "3"], [2.0, 3.0], [2, 10**30], [[2], 3], 2)),
        *({"scale": value} for value in (0.0, -1.0, "5", float("nan"), float("inf"))),
        *({name: "yes"} for name in ("causal", "positions", "any_dim", "anisotropic", "readout")),
        {"positions": True, "max_samples": -1},
        {"positions": True, "max_samples": 10**12},
    ],
)  # fmt: skip
def test_configurations_that_do_not_fit_are_refused_before_memory_is_taken(path, change):
    tensors, metadata = parts(path)
    kept = json.loads(metadata["tgmm"])
    signed(path, tensors, json.dumps(kept | {"network": kept["network"] | change}))
    with pytest.raises(ValueError, match=r"does not hold a usable TGMM|its configuration"):
        load_network(path)


def test_what_is_not_finite_is_not_written(path):
    network, before = load_network(path)[0], path.read_bytes()
    with torch.no_grad():
        network.readin.weight[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"is not written: readin.weight holds values that are not finite"):
        save_network(path, network, {})
    assert path.read_bytes() == before


def trained(steps=1):
    torch.manual_seed(0)
    network = Network(CONFIG)
    every = optimizers(network, TrainConfig((2,), 1))
    for _ in range(steps):
        found = network(torch.ones(2, 8, 2), [(2, 1), (3, 1)])
        sum(one.means.sum() for one in found).backward()
        for optimizer in every:
            optimizer.step()
    return network, every


def test_states_that_do_not_fit_the_optimisers_are_refused(path):
    network, every = trained()
    save_state(path, network, every, {"step": 1})
    tensors, metadata = parts(path)
    assert load_state(path, *trained(0)) == {"step": 1}
    moments = [name for name in tensors if name.startswith("optimizer.")]
    assert {name.split(".")[1] for name in moments} == {"0", "1"}
    less = {name: value for name, value in tensors.items() if name != "optimizer.1.0.exp_avg"}
    for changed, message in (
        (tensors | {"optimizer.0.0.momentum_buffer": torch.zeros(3)}, r"momentum_buffer of shape \(3,\)"),
        (tensors | {"optimizer.1.0.step": torch.zeros(3)}, r"step of shape \(3,\)"),
        (tensors | {"optimizer.1.0.exp_avg": tensors["optimizer.1.0.exp_avg"] / 0}, "exp_avg of shape"),
        (tensors | {"optimizer.7.0.step": torch.zeros(())}, "optimizer.7.0.step"),
        (tensors | {"optimizer.0.999.momentum_buffer": torch.zeros(3)}, "optimizer.0.999"),
        (tensors | {"optimizer.0": torch.zeros(3)}, "optimizer.0 of shape"),
        (less, "a parameter's state is incomplete"),
    ):
        signed(path, changed, metadata["tgmm"])
        with pytest.raises(ValueError, match=f"does not fit its optimisers: .*{message}"):
            load_state(path, *trained(0))


def test_a_network_is_no_training_state(path):
    with pytest.raises(ValueError, match="holds a network but no training state"):
        load_state(path, *trained(0))


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
