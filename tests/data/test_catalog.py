import pytest

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of, register_builtin
from mask2former.data.catalog import Metadata, metadata_of
from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError


def test_a_registered_name_gives_its_records_and_can_be_removed():
    DatasetCatalog.register("mine", lambda: [{"file_name": "a.png"}])
    assert DatasetCatalog.get("mine") == [{"file_name": "a.png"}]
    assert "mine" in DatasetCatalog and "mine" in DatasetCatalog.list()
    DatasetCatalog.remove("mine")
    assert "mine" not in DatasetCatalog


def test_unknown_name_suggests_the_nearest():
    DatasetCatalog.register("street_train", list)
    with pytest.raises(UserError, match="'stret_train'.*Did you mean 'street_train'.*IMPORTS.*DATASETS.CUSTOM"):
        DatasetCatalog.get("stret_train")


def test_a_name_is_not_taken_twice_but_the_same_source_may_come_again():
    DatasetCatalog.register("mine", list)
    DatasetCatalog.register("mine", list)
    with pytest.raises(UserError, match="taken already.*remove"):
        DatasetCatalog.register("mine", dict)


def test_metadata_is_one_object_with_attributes_and_helpful_errors():
    metadata = MetadataCatalog.get("mine").set(stuff_classes=["a", "b"], ignore_label=7)
    assert metadata is MetadataCatalog.get("mine")
    assert metadata.stuff_classes == ["a", "b"] and metadata.get("thing_classes") is None
    assert metadata.as_dict()["ignore_label"] == 7
    with pytest.raises(AttributeError, match=r"no 'stuff_clases'. Did you mean 'stuff_classes'.*set\(stuff_clases="):
        _ = metadata.stuff_clases


@pytest.mark.parametrize(
    "labels",
    [
        LabelSet(("a", "b")),
        LabelSet(("a", "b", "c"), thing_ids=(0, 1), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)), ignore_label=9),
        LabelSet(("a", "b", "c"), thing_ids=(0, 2), dataset_ids=(5, 3, 9)),
        LabelSet(("a", "b"), thing_ids=(0, 1), dataset_ids=(4, 8)),
    ],
)
def test_labels_survive_the_way_through_metadata(labels):
    assert labels_of(Metadata("x").set(**metadata_of(labels))) == labels


def test_labels_without_names_say_how_to_set_them():
    with pytest.raises(UserError, match="'mine' has no class names.*stuff_classes="):
        labels_of(MetadataCatalog.get("mine"))


def test_unknown_name_lists_several_near_ones():
    for name in ("street_train", "street_valid"):
        DatasetCatalog.register(name, list)
    with pytest.raises(UserError, match="Did you mean 'street_train' or 'street_valid'.*<entry>_<split>"):
        DatasetCatalog.get("street_trai")


@pytest.mark.parametrize(
    ("fields", "names", "things"),
    [
        ({"stuff_classes": ["a", "b"]}, ("a", "b"), ()),
        ({"thing_classes": ["a", "b"]}, ("a", "b"), (0, 1)),
        ({"stuff_classes": ["a", "b", "c"], "thing_classes": ["c"]}, ("a", "b", "c"), (2,)),
        ({"stuff_classes": ["a", "b"], "thing_classes": ["c"], "evaluator_type": "coco"}, ("c",), (0,)),
        (
            {"stuff_classes": ["a", "b"], "thing_classes": ["a", "b"], "thing_dataset_id_to_contiguous_id": {9: 1}},
            ("a", "b"),
            (1,),
        ),
    ],
)
def test_classes_and_things_follow_from_the_metadata(fields, names, things):
    labels = labels_of(Metadata("x").set(**fields))
    assert labels.names == names and labels.thing_ids == things


class _TheirCatalog(dict):
    """As detectron2's catalogs behave: a mapping, with `get` making what is asked for, and `list`."""

    def get(self, name):
        return self[name]

    def list(self):
        return [*self]


def test_other_catalogs_are_consulted(monkeypatch, tmp_path):
    for catalog in (DatasetCatalog, MetadataCatalog):
        monkeypatch.setattr(catalog, "_consulted", [])
    records = [{"file_name": "theirs.png"}]
    datasets = _TheirCatalog(theirs=records, ade20k_sem_seg_val=records)
    metadata = _TheirCatalog(theirs=Metadata("theirs").set(thing_classes=["a"], evaluator_type="coco"))
    DatasetCatalog.consult(datasets)
    DatasetCatalog.consult(datasets)
    MetadataCatalog.consult(metadata)
    assert DatasetCatalog.get("theirs") == records and "theirs" in DatasetCatalog
    assert DatasetCatalog.source("theirs") is DatasetCatalog.source("theirs")
    assert DatasetCatalog.list().count("theirs") == 1
    assert labels_of(MetadataCatalog.get("theirs")).names == ("a",)
    register_builtin(tmp_path)  # our own readers go before
    with pytest.raises(UserError, match="prepare_ade20k_sem_seg.py"):
        DatasetCatalog.get("ade20k_sem_seg_val")
    DatasetCatalog.register("theirs", list)
    assert DatasetCatalog.get("theirs") == []
    with pytest.raises(UserError, match="Did you mean 'theirs'"):
        DatasetCatalog.get("their")
