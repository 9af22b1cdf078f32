"""Weights files: what is saved comes back, and nothing else does."""

import json
import os
import pickle
import stat
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save as to_bytes

from constructions import EMTransformer
from constructions.files import _digest, check_writable, load, save, write_files
from tests.compare import gap
from tests.constructions.spectral_cases import network as spectral_network
from tests.constructions.spectral_cases import samples
from tests.problems import em_cases


@pytest.fixture
def em():
    return EMTransformer(2, 3, eps=0.05, r_max=20, pi_min=0.01)


@pytest.fixture
def saved(em, tmp_path):
    path = tmp_path / "em.safetensors"
    save(em, path)
    return path


def contents(path):
    with safe_open(path, framework="numpy") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def write(path, metadata, tensors):
    path.write_bytes(to_bytes(tensors, metadata))


def resealed(path, tensors=None, **changes):
    """The file with changes to what it says of itself, and a checksum that fits."""
    metadata, old = contents(path)
    about = json.loads(metadata["construction"]) | changes
    text = json.dumps(about, sort_keys=True)
    tensors = old if tensors is None else tensors
    write(path, {"construction": text, "sha256": _digest(text, tensors)}, tensors)


def case():
    (one,) = [
        c for c in em_cases(60, seed=3, max_samples=80) if c.X.shape[1] == 2 and len(c.init.weights) == 3
    ][:1]
    return one


def test_a_saved_construction_runs_the_same(em, saved):
    X, _, init = case()
    again = load(saved)
    assert again.config == em.config
    for one, other in zip(em.run(X, init, 3), again.run(X, init, 3), strict=True):
        assert gap(one.means, other.means) == 0
        assert gap(one.weights, other.weights) == 0
    assert again.sizes(2) == em.transformer(2).sizes()


def test_a_saved_spectral_network_runs_the_same(tmp_path):
    net = spectral_network(3, 2, n_power=3, n_restarts=2, seed=5)
    save(net, tmp_path / "net.safetensors")
    again = load(tmp_path / "net.safetensors")
    assert again.config == net.config
    assert again.sizes() == net.sizes()
    X = samples(3, 2, 300, np.random.default_rng(0))
    assert gap(again.run(X, 2).means, net.run(X, 2).means) == 0


def test_the_weights_are_those_of_the_file(em, tmp_path):
    """A network that was changed comes back changed."""
    program = em.program
    layer = program.body[0]
    changed = type(layer)(layer.activation, layer.heads, layer.W1, 1.01 * layer.W2)
    twin = em.with_program(type(program)((), (changed, program.body[1]), (changed, program.final[1])))
    save(twin, tmp_path / "twin.safetensors")
    X, _, init = case()
    back = load(tmp_path / "twin.safetensors").run(X, init, 2)
    assert gap(back[-1].means, twin.run(X, init, 2)[-1].means) == 0
    assert gap(back[-1].means, em.run(X, init, 2)[-1].means) > 0


def test_the_file_explains_itself(saved, em):
    metadata, tensors = contents(saved)
    about = json.loads(metadata["construction"])
    assert about["construction"] == "EMTransformer"
    assert about["layout"] == [list(entry) for entry in em.layout.sizes.items()]
    assert about["sizes"]["width"] == em.layout.width
    assert about["bounds"]["r_max"] == 20
    assert "pooling" in about["readout"]
    assert [layer["activation"] for layer in about["layers"]] == ["softmax"] * 3
    assert [layer["heads"] for layer in about["layers"]] == [1, 2, 2]
    assert tensors["layer0.head0.Q"].shape == (6, 22)
    assert tensors["layer0.head0.writes"].tolist() == list(em.layout.indices("w"))
    assert tensors["layer1.W1"].shape == (em.hidden_widths()[1], 22)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_truncated_files_are_refused(saved, share):
    data = saved.read_bytes()
    saved.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="is not a readable weights file"):
        load(saved)


def test_no_flipped_bit_goes_unnoticed(saved):
    """Every byte of the header and a sample of the rest: refused, or the same in every respect."""
    data = saved.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    rng = np.random.default_rng(0)
    places = [*range(0, header, 7), *rng.integers(header, len(data), 200)]
    refused = 0
    for place in places:
        flipped = bytearray(data)
        flipped[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(flipped)
        try:
            load(saved)
        except ValueError:
            refused += 1
    assert refused == len(places)


class Bomb:
    def __reduce__(self):
        return (os.system, ("touch exploded",))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pickle.dumps(Bomb()), "is not a readable weights file"),
        (b"", "is not a readable weights file"),
        (b"\0" * 100, "is not a readable weights file"),
        (struct.pack("<Q", 2**62) + b"{}", "is not a readable weights file"),
        (struct.pack("<Q", 10) + b'{"a": 1}  ', "is not a readable weights file"),
        (to_bytes({"x": np.zeros(3)}), "holds no construction"),
        (to_bytes({"x": np.zeros(3)}, {"construction": "{}", "sha256": "0"}), "is damaged"),
    ],
)
def test_foreign_files_are_refused(tmp_path, monkeypatch, data, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        load(path)
    assert not (tmp_path / "exploded").exists()


def test_a_huge_tensor_in_the_header_allocates_nothing(tmp_path):
    header = json.dumps(
        {"x": {"dtype": "F64", "shape": [2**40, 2**20], "data_offsets": [0, 2**63 - 1]}}
    ).encode()
    path = tmp_path / "file.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match="is not a readable weights file"):
        load(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2, this version reads 1"),
        (
            {"construction": "os.system"},
            "unknown construction 'os.system'; known: DiagonalEMTransformer, EMTransformer, Spectral",
        ),
        ({"layout": [["x", 2]]}, "its layout is not the one that its arguments give"),
        ({"config": {"d0": 2, "K0": 3}}, "missing .* required keyword-only arguments"),
        ({"config": None}, "does not hold a usable construction"),
        ({"layers": [{"activation": "softmax", "heads": 9}]}, "layer0.head1.Q"),
        ({"layers": [{"activation": "softmax", "heads": 1}] * 9}, "layer3.head0.Q"),
        ({"layers": [{"activation": "gelu", "heads": 1}]}, "activation must be"),
        ({"layers": [{}]}, "does not hold a usable construction"),
        ({"program": {"prologue": [], "body": [0, 1], "final": [0]}}, "same number of layers"),
        ({"program": {"prologue": [], "body": [7], "final": [0]}}, "index out of range"),
        ({"program": {}}, "does not hold a usable construction"),
        ({"program": []}, "does not hold a usable construction"),
    ],
)
def test_parts_that_do_not_fit_are_refused(saved, changes, message):
    resealed(saved, **changes)
    with pytest.raises(ValueError, match=message):
        load(saved)


def test_a_config_that_runs_away_is_refused_before_anything_is_built(saved):
    metadata, _ = contents(saved)
    config = json.loads(metadata["construction"])["config"]
    resealed(saved, config=config | {"d0": 10**9})
    with pytest.raises(ValueError, match="does not hold a usable construction"):
        load(saved)
    resealed(saved, config=config | {"eps": "__import__('os')"})
    with pytest.raises(ValueError, match="does not hold a usable construction"):
        load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.astype(np.float32), "a matrix is in float32, not float64"),
        (lambda t: np.where(t == 0, np.nan, t), "must be finite"),
        (lambda t: t[:, :-1].copy(), "W1 and W2 must be"),
        (lambda t: t[:-1].copy(), "W1 and W2 must be"),
        (lambda t: t[0].copy(), "W1 and W2 must be"),
    ],
)
def test_matrices_of_the_wrong_kind_are_refused(saved, change, message):
    _, tensors = contents(saved)
    resealed(saved, tensors | {"layer1.W1": change(tensors["layer1.W1"])})
    with pytest.raises(ValueError, match=message):
        load(saved)


@pytest.mark.parametrize("writes", [[0, 1], [0, 1, 1], [0, 1, 99], [-1, 0, 1]])
def test_writes_that_do_not_fit_are_refused(saved, writes):
    _, tensors = contents(saved)
    resealed(saved, tensors | {"layer0.head0.writes": np.array(writes)})
    with pytest.raises(ValueError, match="writes of head 0 must"):
        load(saved)


def test_a_network_of_another_width_is_refused(saved):
    _, tensors = contents(saved)
    small = {name: np.zeros([min(n, 4) for n in values.shape]) for name, values in tensors.items()}
    for name in small:
        if name.endswith("writes"):
            small[name] = np.arange(len(small[name]))
        elif name.endswith(("W1", "W2")):
            small[name] = np.zeros((4, 4))
    resealed(saved, small)
    with pytest.raises(ValueError, match="layers have width 4, the layout has 22"):
        load(saved)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        load(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no such weights file"):
        load(tmp_path)


# ---- writing files


def test_all_files_are_written_or_none(tmp_path, monkeypatch):
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_bytes(b"old")
    write_files({first: b"new", second: b"data"})
    assert (first.read_bytes(), second.read_bytes()) == (b"new", b"data")
    first.write_bytes(b"old")
    second.unlink()

    def full_disk(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_files({first: b"new", second: b"data"})
    assert first.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_modes_of_existing_files_and_links_are_kept(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_files({link: b"new"})
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    fresh = tmp_path / "fresh"
    write_files({fresh: b""})
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (lambda tmp: tmp, "it is not a regular file"),
        (lambda tmp: tmp / "none" / "file", "no folder"),
        (lambda tmp: Path("/dev/null"), "it is not a regular file"),
        (lambda tmp: Path("/proc/file"), "cannot write /proc/file"),
    ],
)
def test_places_that_cannot_be_written(tmp_path, path, message):
    with pytest.raises(OSError, match=message):
        check_writable(path(tmp_path))
    with pytest.raises(OSError, match=message):
        write_files({path(tmp_path): b"data"})
