import io
import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from mask2former.checkpoint.pickles import read_plain_pickle
from mask2former.utils.errors import UserError


class Runs:
    """What a hostile file does: name a function to call."""

    def __init__(self, function, *args):
        self.call = (function, args)

    def __reduce__(self):
        return self.call


def through(value, protocol=2):
    return read_plain_pickle(io.BytesIO(pickle.dumps(value, protocol)), "x.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_and_plain_values_come_back(protocol):
    value = OrderedDict(
        model={
            "w": np.arange(6, dtype=np.float32).reshape(2, 3),
            "s": np.float64(1.5),
            "b": b"\xff",
            "f": np.ones((2, 2)).T,
        },
        matching_heuristics=True,
        __author__="torchvision",
        more=[1, 2.5, None, (3, "x")],
    )
    got = through(value, protocol)
    assert np.array_equal(got["model"]["w"], value["model"]["w"]) and got["model"]["w"].dtype == np.float32
    assert got["model"]["s"] == 1.5 and got["model"]["b"] == b"\xff" and got["more"] == value["more"]


# ---------------------------------------------------------------- tensors, as the published converters pickle them


class InBytes:
    """A pickle within a pickle, where the values of a tensor should be."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        return torch.storage._load_from_bytes, (self.data,)


def torch_saved(value, **kwargs):
    buffer = io.BytesIO()
    torch.save(value, buffer, **kwargs)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_tensors_come_back(protocol):
    line = torch.arange(6.0)
    tensors = OrderedDict(
        parameter=torch.nn.Parameter(line.reshape(2, 3).T),
        view=line[2:4],
        half=torch.ones(2, dtype=torch.bfloat16),
        count=torch.tensor(3),
        empty=torch.zeros(0, 3),
    )
    got = through({"model": tensors, "__author__": "third_party", "matching_heuristics": True}, protocol)["model"]
    assert got.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(got[name], tensor) and got[name].dtype == tensor.dtype and not got[name].requires_grad


HOSTILE = Runs(os.system, "touch ran")


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(HOSTILE, 2),
        pickle.dumps(HOSTILE, 4),
        torch_saved(HOSTILE),
        torch_saved(HOSTILE, _use_new_zipfile_serialization=False),
        torch_saved({"no": "values"}),
    ],
    ids=["pickle", "pickle 4", "torch", "torch before 1.6", "a dict"],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_the_values_of_a_tensor_is_refused_unrun(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"x\.pkl was refused.*_load_from_bytes"):
        through({"model": {"w": InBytes(data)}})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_cannot_reach_beyond_its_values():
    rebuild, (storage, offset, _, _, *rest) = torch.zeros(4).__reduce_ex__(2)
    assert torch.equal(through(Runs(rebuild, storage, offset, (2, 2), (2, 1), *rest)), torch.zeros(2, 2))
    with pytest.raises(UserError, match=r"x\.pkl could not be read.*out of bounds"):
        through(Runs(rebuild, storage, offset, (3, 3), (100, 1), *rest))


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_both_spellings_of_numpy_are_known(module):
    data = pickle.dumps({"w": np.ones(3)}, 2)
    here = np.ones(3).__reduce__()[0].__module__.encode()
    got = read_plain_pickle(io.BytesIO(data.replace(here, module.encode())), "x.pkl")
    assert np.array_equal(got["w"], np.ones(3))


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch ran",), "system"),
        (eval, ("1 + 1",), "eval"),
        (getattr, ("x", "upper"), "getattr"),
        (np.save, ("ran.npy", 1), "save"),
    ],
)
def test_anything_else_is_refused_and_named(function, args, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"x\.pkl was refused.*{name}"):
        through({"model": Runs(function, *args)})
    assert list(tmp_path.iterdir()) == []


def test_bytes_in_other_encodings_are_refused():
    import codecs

    with pytest.raises(UserError, match="latin|rot13|Latin"):
        through(Runs(codecs.encode, "abc", "rot13"))


def test_cut_off_file():
    data = pickle.dumps({"w": np.ones(1000)}, 2)
    with pytest.raises(UserError, match="cut off or damaged"):
        read_plain_pickle(io.BytesIO(data[: len(data) // 2]), "x.pkl")
