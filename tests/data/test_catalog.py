import pytest

from mask2former.data import DatasetCatalog, MetadataCatalog, labels_of, register_builtin
from mask2former.data.catalog import Metadata, metadata_of
from mask2former.structures import LabelSet, builtin_labels
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


def test_builtin_sets_have_their_published_labels(tmp_path):
    register_builtin(tmp_path)
    register_builtin(tmp_path)
    for name in MetadataCatalog.list():
        assert labels_of(MetadataCatalog.get(name)) == builtin_labels(name), name
    assert labels_of(MetadataCatalog.get("ade20k_sem_seg_val")).num_classes == 150
    assert len(labels_of(MetadataCatalog.get("coco_2017_val_panoptic")).thing_ids) == 80
    with pytest.raises(UserError, match=f"{tmp_path}.*does not exist"):
        DatasetCatalog.get("ade20k_sem_seg_val")
    with pytest.raises(UserError, match="no reader"):
        DatasetCatalog.get("coco_2017_val")


def test_builtin_registration_leaves_a_users_own_data_set_alone(tmp_path):
    DatasetCatalog.register("ade20k_sem_seg_val", lambda: [{"file_name": "mine.png"}])
    MetadataCatalog.get("ade20k_sem_seg_val").set(stuff_classes=["only"])
    register_builtin(tmp_path)
    assert DatasetCatalog.get("ade20k_sem_seg_val") == [{"file_name": "mine.png"}]
    assert MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes == ["only"]
