"""The classes that an evaluator counts by."""

from __future__ import annotations

from mask2former.data.catalog import DatasetCatalog, MetadataCatalog, labels_of
from mask2former.structures.labels import LabelSet


def labels_for(dataset: str | LabelSet) -> LabelSet:
    """The labels themselves, or those of the registered data set of that name.

    Raises:
        UserError: no data set of this name is registered, or it names no classes.
    """
    if isinstance(dataset, LabelSet):
        return dataset
    if dataset not in MetadataCatalog:
        DatasetCatalog.source(dataset)  # tells an unknown name with those that are near
    return labels_of(MetadataCatalog.get(dataset))
