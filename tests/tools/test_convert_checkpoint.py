"""Any file to any other: values arrive, what has no place is told, and nothing is lost or replaced unasked."""

import json
import pickle
import re

import pytest
import safetensors.torch
import torch
from torchvision.models import resnet as torchvision_resnet

from mask2former.checkpoint import load_checkpoint_file
from mask2former.checkpoint.formats import FORMATS
from mask2former.config import load_cfg
from mask2former.modeling import build_model
from mask2former.modeling.backbone.resnet import ResNet
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


def small_resnet():
    """torchvision's names and a block of each stage, with little inside."""
    return torchvision_resnet.ResNet(torchvision_resnet.Bottleneck, [1, 1, 1, 1], width_per_group=8)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """torchvision's file, and what is in it."""
    path = tmp_path_factory.mktemp("torchvision") / "resnet.pth"
    state = small_resnet().state_dict()
    torch.save(state, path)
    return str(path), state


@pytest.fixture(scope="module")
def published_backbone():
    """Names of R50's tensors in a published checkpoint."""
    with torch.device("meta"):
        return {f"backbone.{name}" for name in ResNet().state_dict()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def without_rest(state):
    return {n: t for n, t in state.items() if not n.startswith("fc.") and not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".pkl"])
def test_there_and_back(suffix, theirs, published_backbone, tool, tmp_path, capsys):
    path, state = theirs
    main = tool("convert_checkpoint").main
    ours, back = tmp_path / f"R-50{suffix}", tmp_path / f"back{suffix}"
    assert main([path, str(ours)]) == 0
    out = capsys.readouterr().out
    assert f"torchvision's or timm's ResNet, {len(state)} tensors" in out
    assert f"{len(without_rest(state))} under our names" in out
    assert "without a counterpart, left out (2):" in out and "fc.*" in out
    found = load_checkpoint_file(str(ours))["model"]
    assert found.keys() == {n for n in published_backbone if not re.search(r"res\d\.[1-9]", n)}
    assert torch.equal(found["backbone.res2.0.conv1.weight"], state["layer1.0.conv1.weight"])
    assert main([str(ours), str(back), "--to", "torchvision-resnet"]) == 0
    assert same(load_checkpoint_file(str(back))["model"], without_rest(state))


def test_torchvision_takes_what_is_written(theirs, tool, tmp_path):
    path, state = theirs
    main = tool("convert_checkpoint").main
    main([path, str(tmp_path / "ours.pth")])
    main([str(tmp_path / "ours.pth"), str(tmp_path / "theirs.pth"), "--to", "torchvision-resnet"])
    network = small_resnet()
    missing, unexpected = network.load_state_dict(torch.load(tmp_path / "theirs.pth"), strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"} and not unexpected
    assert torch.equal(network.layer4[0].bn3.running_var, state["layer4.0.bn3.running_var"])


def test_pkl_is_what_detectron2_reads(theirs, tool, tmp_path):
    tool("convert_checkpoint").main([theirs[0], str(tmp_path / "R-50.pkl"), "--to", "detectron2-resnet"])
    contents = pickle.loads((tmp_path / "R-50.pkl").read_bytes())  # what this test wrote itself
    assert contents["matching_heuristics"] is True and contents["__author__"]
    assert contents["model"]["stem.conv1.norm.running_mean"].dtype.name == "float32"


def test_half_precision_survives_where_the_container_has_it(tool, tmp_path):
    state = {name: tensor.bfloat16() for name, tensor in without_rest(small_resnet().state_dict()).items()}
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    main = tool("convert_checkpoint").main
    for name, dtype in (("a.safetensors", torch.bfloat16), ("a.pth", torch.bfloat16), ("a.pkl", torch.float32)):
        main([str(tmp_path / "w.safetensors"), str(tmp_path / name)])
        weights = load_checkpoint_file(str(tmp_path / name))["model"]
        assert {tensor.dtype for tensor in weights.values()} == {dtype}
        assert torch.equal(weights["backbone.stem.conv1.weight"].float(), state["conv1.weight"].float())


def test_recipe_and_classes_of_our_checkpoints_stay(tool, tmp_path):
    model = {"backbone.x": torch.ones(2), "criterion.empty_weight": torch.ones(1)}
    contents = {"model": model, "labels": {"names": ["a"]}, "config": "A: 1\n", "optimizer": {"state": {}}}
    torch.save(contents, tmp_path / "w.pth")
    tool("convert_checkpoint").main([str(tmp_path / "w.pth"), str(tmp_path / "out.pth")])
    found = load_checkpoint_file(str(tmp_path / "out.pth"))
    assert found.keys() == {"model", "labels", "config"} and found["labels"] == {"names": ["a"]}


def test_an_existing_file_is_replaced_only_when_asked(theirs, tool, tmp_path):
    main, output = tool("convert_checkpoint").main, tmp_path / "w.pth"
    output.write_text("dear")
    with pytest.raises(UserError, match=r"exists already: add --overwrite"):
        main([theirs[0], str(output)])
    assert output.read_text() == "dear"
    main([theirs[0], str(output), "--overwrite"])
    assert "backbone.stem.conv1.weight" in load_checkpoint_file(str(output))["model"]


@pytest.mark.parametrize(
    ("flags", "output", "message"),
    [
        (["--to", "swin"], "w.pth", "cannot express this backbone"),
        (["--to", "caffe2-resnet"], "w.pth", r"It is only read\. Known: official"),
        (["--to", "torchvision-resnets"], "w.pth", "Did you mean 'torchvision-resnet'"),
        ([], "w.onnx", r"ends in '\.onnx': expected one of \.pth"),
    ],
)
def test_what_cannot_be_written_leaves_nothing(flags, output, message, theirs, tool, tmp_path):
    with pytest.raises(UserError, match=message):
        tool("convert_checkpoint").main([theirs[0], str(tmp_path / output), *flags])
    assert list(tmp_path.iterdir()) == []


def test_names_of_nobody_are_refused(tool, tmp_path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"belong to no format that is known here, such as a\.weight"):
        tool("convert_checkpoint").main([str(tmp_path / "w.pth"), str(tmp_path / "out.pth")])
    assert not (tmp_path / "out.pth").exists()


def test_recipe_says_what_fits(repo_dir, tool, tmp_path, capsys):
    main, path = tool("convert_checkpoint").main, str(tmp_path / "theirs.pth")
    torch.save(torchvision_resnet.resnet50().state_dict(), path)
    recipes = repo_dir / "configs" / "coco" / "panoptic-segmentation"
    main([path, str(tmp_path / "w.pth"), "--config-file", str(recipes / "maskformer2_R50_bs16_50ep.yaml")])
    assert "  265 of " in capsys.readouterr().out
    with pytest.raises(UserError, match="another architecture"):
        recipe = recipes / "swin" / "maskformer2_swin_tiny_bs16_50ep.yaml"
        main([path, str(tmp_path / "other.pth"), "--config-file", str(recipe)])
    assert not (tmp_path / "other.pth").exists()


def test_list_has_every_format(tool, capsys):
    tool("convert_checkpoint").main(["--list"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["official", "transformers", *(one.name for one in FORMATS)]


# ---------------------------------------------------------------- Hugging Face


@pytest.fixture(scope="module")
def small_model(repo_dir, tmp_path_factory):
    """A Mask2Former of a published kind, small, in a file of ours with class names."""
    sizes = {
        "MODEL.SWIN": {"EMBED_DIM": 8, "NUM_HEADS": [1, 2, 4, 8], "DEPTHS": [1, 1, 1, 1], "WINDOW_SIZE": 3},
        "MODEL.SEM_SEG_HEAD": {"CONVS_DIM": 32, "MASK_DIM": 32, "NUM_CLASSES": 3, "TRANSFORMER_ENC_LAYERS": 1},
        "MODEL.MASK_FORMER": {"HIDDEN_DIM": 32, "DIM_FEEDFORWARD": 16, "DEC_LAYERS": 2, "NUM_OBJECT_QUERIES": 4},
    }
    opts = [item for section, keys in sizes.items() for k, v in keys.items() for item in (f"{section}.{k}", v)]
    recipe = repo_dir / "configs/coco/panoptic-segmentation/swin/maskformer2_swin_tiny_bs16_50ep.yaml"
    cfg = load_cfg(recipe, [*opts, "MODEL.DEVICE", "cpu", "DATASETS.TRAIN", [], "INPUT.MIN_SIZE_TEST", 640])
    labels = LabelSet(("cat", "dog", "fox"))
    folder = tmp_path_factory.mktemp("small")
    model = build_model(cfg, labels).state_dict()
    path = folder / "model.pth"
    torch.save({"model": model, "labels": labels.to_dict(), "config": cfg.dump()}, path)
    return str(path), model


def test_to_transformers_and_back(small_model, tool, tmp_path):
    path, model = small_model
    main, folder = tool("convert_checkpoint").main, tmp_path / "hf"
    assert main([path, str(folder), "--to", "transformers"]) == 0
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "config.json", "preprocessor_config.json"}
    config, processor = (json.loads((folder / f).read_text()) for f in ("config.json", "preprocessor_config.json"))
    assert config["model_type"] == "mask2former" and config["id2label"] == {"0": "cat", "1": "dog", "2": "fox"}
    assert processor["size"] == {"shortest_edge": 640, "longest_edge": 1333}
    assert main([str(folder), str(tmp_path / "back.pth")]) == 0
    back = load_checkpoint_file(str(tmp_path / "back.pth"))["model"]
    left = {"criterion.empty_weight"}  # the recipe's, not learned
    assert same({n: back[n] for n in back if n not in left}, {n: model[n] for n in model if n not in left})


def test_to_mmdetection_and_back(small_model, tool, tmp_path):
    path, model = small_model
    main = tool("convert_checkpoint").main
    main([path, str(tmp_path / "mm.pth"), "--to", "mmdetection-3"])
    main([str(tmp_path / "mm.pth"), str(tmp_path / "back.pth")])
    back = load_checkpoint_file(str(tmp_path / "back.pth"))["model"]
    assert back.keys() == model.keys()
    assert all(torch.equal(back[n], t) for n, t in model.items() if "relative_position_index" not in n)


def test_colours_in_another_order_are_refused(small_model, repo_dir, tool, tmp_path):
    contents = torch.load(small_model[0])
    contents["config"] = contents["config"].replace("FORMAT: RGB", "FORMAT: BGR")
    torch.save(contents, tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"INPUT\.FORMAT is BGR, and transformers feeds RGB"):
        tool("convert_checkpoint").main([str(tmp_path / "w.pth"), str(tmp_path / "hf"), "--to", "transformers"])
    assert not (tmp_path / "hf").exists()
