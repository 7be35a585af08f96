import pytest
import torch
from torch import nn

from mask2former.checkpoint import load_weights
from mask2former.checkpoint.convert import convert_names
from mask2former.checkpoint.surgery import adapt
from mask2former.config import get_cfg, load_cfg
from mask2former.engine.run import _load_initial_weights
from mask2former.modeling import build_model
from mask2former.modeling.backbone.swin import SwinTransformer
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError

HEAD = "sem_seg_head.predictor."
ANIMALS = ("cat", "dog", "fox", "owl")
OTHERS = ("owl", "newt", "cat")


class Model(nn.Module):
    """The names and rows of the real ones: a mask decoder, or with `per_pixel` the baselines' predictors."""

    def __init__(self, names=ANIMALS, queries=5, per_pixel="", channels=6):
        super().__init__()
        self.backbone = nn.Sequential(*(nn.Linear(3, 3) for _ in range(4)))
        head = nn.Module()
        if per_pixel == "plain":
            head.predictor = nn.Conv2d(channels, len(names), 1)
        else:
            head.predictor = nn.Module()
            head.predictor.query_embed = nn.Embedding(len(names) if per_pixel else queries, channels)
        if not per_pixel:
            head.predictor.query_feat = nn.Embedding(queries, channels)
            head.predictor.class_embed = nn.Linear(channels, len(names) + 1)
            self.criterion = nn.Module()
            self.criterion.register_buffer("empty_weight", torch.rand(len(names) + 1))
        self.sem_seg_head = head


def save(model, path, names=None, rename=lambda name: name):
    labels = {"labels": LabelSet(names).to_dict()} if names else {}
    torch.save({"model": {rename(n): t for n, t in model.state_dict().items()}, **labels}, path)
    return str(path)


def copies(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def shapes_of(report):
    return {one.name: (one.in_file, one.in_model) for one in report.adapted}


# ---------------------------------------------------------------- queries


@pytest.mark.parametrize(("count", "rows"), [(3, [0, 1, 2]), (12, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1])])
def test_queries_keep_the_first_or_repeat_in_order_exactly(count, rows, tmp_path):
    source, model = Model(), Model(queries=count)
    report = load_weights(model, save(source, tmp_path / "w.pth"))
    for name in ("query_feat.weight", "query_embed.weight"):
        assert torch.equal(model.state_dict()[HEAD + name], source.state_dict()[HEAD + name][rows])
    assert shapes_of(report) == {HEAD + f"query_{n}.weight": ((5, 6), (count, 6)) for n in ("feat", "embed")}
    assert not report.reshaped and not report.missing
    assert f"query_feat.weight: [5, 6] in the file, [{count}, 6] in the model" in str(report)


def test_growing_and_shrinking_again_gives_the_same_queries(tmp_path):
    source, grown, back = Model(), Model(queries=9), Model()
    load_weights(grown, save(source, tmp_path / "a.pth"))
    load_weights(back, save(grown, tmp_path / "b.pth"))
    assert all(torch.equal(t, back.state_dict()[n]) for n, t in source.state_dict().items() if "query" in n)


def test_queries_of_another_width_start_afresh(tmp_path):
    model = Model(queries=7, channels=8)
    before = copies(model)
    report = load_weights(model, save(Model(), tmp_path / "w.pth"))
    assert not report.adapted and HEAD + "query_feat.weight" in {r.name for r in report.reshaped}
    assert torch.equal(model.state_dict()[HEAD + "query_feat.weight"], before[HEAD + "query_feat.weight"])


def test_older_names_are_read(tmp_path):
    source, model = Model(), Model(queries=2)
    path = save(source, tmp_path / "w.pth", rename=lambda n: n.replace("query_feat", "static_query"))
    report = load_weights(model, path)
    assert not report.missing and not report.unexpected and "older" in report.notes[0]
    name = HEAD + "query_feat.weight"
    assert torch.equal(model.state_dict()[name], source.state_dict()[name][:2])


def test_older_names_of_the_pixel_decoder_are_read():
    ours = {"sem_seg_head.pixel_decoder.mask_features.weight": 1, "sem_seg_head.predictor.x": 2}
    older = {name.replace("pixel_decoder.", ""): value for name, value in ours.items()}
    assert convert_names(older, set(ours))[0] == ours


# ---------------------------------------------------------------- classes


def test_rows_follow_the_names_of_classes(tmp_path):
    source, model = Model(ANIMALS), Model(OTHERS)
    before, theirs = copies(model), source.state_dict()
    report = load_weights(model, save(source, tmp_path / "w.pth", ANIMALS), labels=LabelSet(OTHERS))
    for name in ("class_embed.weight", "class_embed.bias"):
        owl, newt, cat, no_object = model.state_dict()[HEAD + name]
        assert torch.equal(owl, theirs[HEAD + name][3]) and torch.equal(cat, theirs[HEAD + name][0])
        assert torch.equal(no_object, theirs[HEAD + name][-1])
        assert torch.equal(newt, before[HEAD + name][1])
    assert torch.equal(model.criterion.empty_weight, before["criterion.empty_weight"])
    assert not report.reshaped and not report.missing
    assert "2 of 3 kept by name (owl, cat), starting afresh: newt" in str(report)


def test_same_number_in_another_order_is_sorted(tmp_path):
    source, model = Model(ANIMALS), Model(ANIMALS[::-1])
    before = copies(model)
    path = save(source, tmp_path / "w.pth", ANIMALS)
    load_weights(model, path, labels=LabelSet(ANIMALS[::-1]))
    name = HEAD + "class_embed.weight"
    assert torch.equal(model.state_dict()[name], source.state_dict()[name][[3, 2, 1, 0, 4]])
    assert torch.equal(model.criterion.empty_weight, before["criterion.empty_weight"])


@pytest.mark.parametrize(("in_file", "in_model"), [(ANIMALS, ANIMALS), (ANIMALS, None), (None, (*OTHERS, "ant"))])
def test_rows_are_copied_as_they_stand_where_names_agree_or_are_unknown(in_file, in_model, tmp_path):
    source, model = Model(), Model()
    labels = LabelSet(in_model) if in_model else None
    report = load_weights(model, save(source, tmp_path / "w.pth", in_file), labels=labels)
    assert not report.adapted
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in source.state_dict().items())


def test_without_names_another_number_of_classes_starts_afresh(tmp_path):
    model = Model(OTHERS)
    before = copies(model)
    report = load_weights(model, save(Model(ANIMALS), tmp_path / "published.pth"), labels=LabelSet(OTHERS))
    assert {r.name for r in report.reshaped if r.class_head} == {
        HEAD + "class_embed.weight",
        HEAD + "class_embed.bias",
        "criterion.empty_weight",
    }
    assert all(torch.equal(model.state_dict()[r.name], before[r.name]) for r in report.reshaped)


@pytest.mark.parametrize(("kind", "tensors"), [("plain", ("weight", "bias")), ("plus", ("query_embed.weight",))])
def test_per_pixel_baselines_have_a_row_for_each_class_and_no_other(kind, tensors, tmp_path):
    source, model = Model(ANIMALS, per_pixel=kind), Model(OTHERS, per_pixel=kind)
    before, theirs = copies(model), source.state_dict()
    load_weights(model, save(source, tmp_path / "w.pth", ANIMALS), labels=LabelSet(OTHERS))
    for name in tensors:
        owl, newt, cat = model.state_dict()[HEAD + name]
        assert torch.equal(owl, theirs[HEAD + name][3]) and torch.equal(cat, theirs[HEAD + name][0])
        assert torch.equal(newt, before[HEAD + name][1])


def test_queries_that_stand_for_classes_are_not_repeated(tmp_path):
    model = Model(OTHERS, per_pixel="plus")
    report = load_weights(model, save(Model(ANIMALS, per_pixel="plus"), tmp_path / "w.pth"))
    assert not report.adapted and [(r.name, r.class_head) for r in report.reshaped] == [
        (HEAD + "query_embed.weight", True)
    ]


def test_refused_file_changes_nothing(tmp_path):
    model = Model(OTHERS, queries=8)
    before = copies(model)
    other = nn.ModuleDict({"sem_seg_head": Model().sem_seg_head, "backbone": nn.Linear(9, 9)})
    with pytest.raises(UserError, match="another architecture"):
        load_weights(model, save(other, tmp_path / "w.pth", ANIMALS), labels=LabelSet(OTHERS))
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())


def test_real_model(repo_dir, tmp_path):
    """A quickstart model of other classes and queries takes everything, and predicts."""

    def built(names, queries):
        cfg = load_cfg(repo_dir / "configs/quickstart/semantic.yaml", ["MODEL.DEVICE", "cpu"])
        cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = queries, len(names)
        return build_model(cfg, LabelSet(names))

    source, model = built(ANIMALS, 6), built(OTHERS, 15)
    report = load_weights(model, save(source, tmp_path / "w.pth", ANIMALS), labels=LabelSet(OTHERS))
    assert not report.reshaped and not report.missing and not report.unexpected and len(report.adapted) == 5
    raw = model.eval().predict_raw([{"image": torch.zeros(3, 64, 64)}])
    assert raw["pred_logits"].shape == (1, 15, 4) and raw["pred_logits"].isfinite().all()


def test_training_starts_from_the_rows_of_its_own_classes(tmp_path):
    source, model, cfg = Model(ANIMALS), Model(OTHERS), get_cfg()
    cfg.MODEL.WEIGHTS = save(source, tmp_path / "w.pth", ANIMALS)
    _load_initial_weights(cfg, model, LabelSet(OTHERS))
    name = HEAD + "class_embed.weight"
    assert torch.equal(model.state_dict()[name][[0, 2, 3]], source.state_dict()[name][[3, 0, 4]])


# ---------------------------------------------------------------- windows and positions


def swin(window=4, edge=32):
    network = SwinTransformer(channels=8, depths=(1,) * 4, num_heads=(1, 2, 4, 8), window=window, pretrain_size=edge)
    return nn.ModuleDict({"backbone": network})


TABLE = "backbone.layers.1.blocks.0.attn.relative_position_bias_table"
POSITIONS = "backbone.absolute_pos_embed"


def slope(edge):
    """A plane over a square map, seen at the centres of its places [edge,edge]."""
    line = torch.linspace(-1, 1, 2 * edge + 1)[1::2]
    return line[:, None] + 2 * line


@pytest.mark.parametrize(("window", "new"), [(4, 6), (6, 4)])
def test_bias_tables_of_another_window_are_resized(window, new, tmp_path):
    source, model = swin(window), swin(new)
    with torch.no_grad():
        theirs = torch.stack([torch.full((2 * window - 1,) * 2, 3.0), slope(2 * window - 1)], -1)
        source.get_parameter(TABLE).copy_(theirs.flatten(0, 1))
    index = model.state_dict()[TABLE.replace("bias_table", "index")].clone()
    report = load_weights(model, save(source, tmp_path / "w.pth"))
    edge = 2 * new - 1
    constant, plane = model.get_parameter(TABLE).detach().unflatten(0, (edge, edge)).unbind(-1)
    torch.testing.assert_close(constant, torch.full((edge, edge), 3.0))
    inner = slice(2, -2)  # bicubic weights see beyond the border
    torch.testing.assert_close(plane[inner, inner], slope(edge)[inner, inner], atol=0.06, rtol=0)
    assert torch.equal(model.state_dict()[TABLE.replace("bias_table", "index")], index)
    assert not report.reshaped and len(report.adapted) == 8  # a table and an index in each of four blocks
    assert "relative_position_bias_table: [" in str(report) and "(and 3 more)" in str(report)


@pytest.mark.parametrize("tokens", [False, True], ids=["map", "tokens of a classifier"])
def test_absolute_positions_of_another_size_are_resized(tokens, tmp_path):
    source, model = swin(edge=32), swin(edge=64)
    with torch.no_grad():
        source.get_parameter(POSITIONS).copy_(slope(8).expand(1, 8, 8, 8))
    state = dict(source.state_dict())
    if tokens:
        state[POSITIONS] = state[POSITIONS].flatten(2).transpose(1, 2)
    torch.save(state, tmp_path / "w.pth")
    report = load_weights(model, str(tmp_path / "w.pth"))
    assert [one.name for one in report.adapted] == [POSITIONS]
    inner = model.get_parameter(POSITIONS).detach()[0, 0, 4:-4, 4:-4]
    torch.testing.assert_close(inner, slope(16)[4:-4, 4:-4], atol=0.06, rtol=0)


def test_positions_as_tokens_of_the_same_size_are_laid_out(tmp_path):
    source, model = swin(), swin()
    state = dict(source.state_dict())
    state[POSITIONS] = state[POSITIONS].flatten(2).transpose(1, 2)
    torch.save(state, tmp_path / "w.pth")
    load_weights(model, str(tmp_path / "w.pth"))
    assert torch.equal(model.get_parameter(POSITIONS), source.get_parameter(POSITIONS))


def test_bias_tables_of_other_heads_are_not_touched():
    name = "attn.relative_position_bias_table"
    theirs = torch.rand(49, 3)
    weights, adapted = adapt({name: theirs}, {name: torch.rand(121, 4)}, None)
    assert not adapted and weights[name] is theirs
