"""Names of data sets: where their records come from and what their class numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from mask2former.structures import LabelSet
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest


class _DatasetCatalog:
    """Data set name -> function without arguments that returns the records, a list of dicts.

    A record of a semantic data set has "file_name" and "sem_seg_file_name"; "image_id", "height" and "width"
    (pixels, after EXIF orientation) are read from the files where they are missing.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], list[dict]]] = {}

    def register(self, name: str, func: Callable[[], list[dict]]) -> None:
        """Give `name` to a source of records.

        Raises:
            UserError: `name` belongs to another source, or `func` cannot be called.
        """
        if not callable(func):
            raise UserError(
                f"DatasetCatalog.register({name!r}, ...) got {type(func).__name__}; it takes a function without "
                "arguments that returns the list of records."
            )
        if name in self._sources and self._sources[name] != func:
            raise UserError(
                f"The data set name {name!r} is taken already. Choose another name, or call "
                f"DatasetCatalog.remove({name!r}) first."
            )
        self._sources[name] = func

    def source(self, name: str) -> Callable[[], list[dict]]:
        """The function registered under `name`; an unknown name is a UserError with the nearest known one."""
        if name in self._sources:
            return self._sources[name]
        if name in MetadataCatalog and MetadataCatalog.get(name).get("builtin", False):
            raise UserError(
                f"The class names of data set {name!r} are known, but this version has no reader for its annotations. "
                f"Register one with DatasetCatalog.register({name!r}, ...) in a module named under IMPORTS."
            )
        raise UserError(
            f"Unknown data set {name!r}.{suggest(name, self._sources)} Known: "
            f"{', '.join(sorted(self._sources)) or 'none'}. "
            "Register it in a module named under IMPORTS, or describe its folder under DATASETS.CUSTOM."
        )

    def get(self, name: str) -> list[dict]:
        """The records of data set `name`, read now."""
        return self.source(name)()

    def list(self) -> list[str]:
        """All names, in the order of registration."""
        return [*self._sources]

    def remove(self, name: str) -> None:
        """Forget `name`."""
        self.source(name)
        del self._sources[name]

    def pop(self, name: str) -> Callable[[], list[dict]]:
        """Forget `name` and return its source."""
        func = self.source(name)
        del self._sources[name]
        return func

    def clear(self) -> None:
        """Forget every name."""
        self._sources.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._sources

    def __iter__(self) -> Iterator[str]:
        return iter(self._sources)

    def __repr__(self) -> str:
        return f"DatasetCatalog({', '.join(self._sources)})"


class Metadata:
    """What is known of a data set beside its records, as attributes: `stuff_classes`, `ignore_label` and the like."""

    def __init__(self, name: str):
        self.name = name

    def set(self, **values: Any) -> Metadata:
        """Set several attributes; returns the metadata itself, so that calls chain."""
        self.__dict__.update(values)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """The attribute `key`, or `default` where it was never set."""
        return self.__dict__.get(key, default)

    def as_dict(self) -> dict[str, Any]:
        """A shallow copy of all attributes, the name among them."""
        return dict(self.__dict__)

    def __getattr__(self, key: str) -> Any:
        if key.startswith("__"):  # protocols such as copy and pickle probe for these
            raise AttributeError(key)
        known = self.__dict__
        raise AttributeError(
            f"Metadata of data set {known.get('name')!r} has no {key!r}.{suggest(key, known)} It has {sorted(known)}. "
            f"Set it with MetadataCatalog.get({known.get('name')!r}).set({key}=...)."
        )

    def __repr__(self) -> str:
        return f"Metadata({', '.join(f'{key}={value!r}' for key, value in self.__dict__.items())})"


class _MetadataCatalog:
    """Data set name -> `Metadata`, made empty at the first `get`."""

    def __init__(self) -> None:
        self._entries: dict[str, Metadata] = {}

    def get(self, name: str) -> Metadata:
        """The metadata of `name`; always the same object for one name."""
        return self._entries.setdefault(name, Metadata(name))

    def list(self) -> list[str]:
        """All names, in the order of their first use."""
        return [*self._entries]

    def remove(self, name: str) -> None:
        """Forget `name`; an unknown name is a UserError with the nearest known one."""
        self.pop(name)

    def pop(self, name: str) -> Metadata:
        """Forget `name` and return its metadata."""
        if name not in self._entries:
            raise UserError(f"No metadata of data set {name!r}.{suggest(name, self._entries)}")
        return self._entries.pop(name)

    def clear(self) -> None:
        """Forget every name."""
        self._entries.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __repr__(self) -> str:
        return f"MetadataCatalog({', '.join(self._entries)})"


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()


def default_ignore_label(num_classes: int) -> int:
    """The ignore value of a data set that states none: the last one of 8 bits, or of 16 where that is a class."""
    return 255 if num_classes <= 255 else 65535


def labels_of(metadata: Metadata) -> LabelSet:
    """The classes that a data set's metadata describes, in the order of the model's outputs.

    `stuff_classes` lists all classes of a semantic or panoptic data set, things included; a data set with
    `thing_classes` alone is an instance data set. Things are the classes that `thing_dataset_id_to_contiguous_id`
    maps to.

    Raises:
        UserError: the metadata names no classes.
    """
    names = metadata.get("stuff_classes") or metadata.get("thing_classes")
    if not names:
        raise UserError(
            f"Data set {metadata.name!r} has no class names. Set them where it is registered: "
            f"MetadataCatalog.get({metadata.name!r}).set(stuff_classes=[...], ignore_label=255)."
        )
    kind = "stuff" if metadata.get("stuff_classes") else "thing"
    thing_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    thing_names = metadata.get("thing_classes") or names
    id_map = {**(metadata.get("stuff_dataset_id_to_contiguous_id") or {}), **thing_map}
    ids = {contiguous: int(own) for own, contiguous in id_map.items()}
    dataset_ids = tuple(ids.get(i, i) for i in range(len(names)))
    return LabelSet(
        names=tuple(names),
        thing_ids=tuple(sorted(i for i in set(thing_map.values()) if i < len(names) and names[i] in thing_names)),
        colors=tuple(tuple(int(c) for c in color) for color in metadata.get(f"{kind}_colors") or ()),
        ignore_label=metadata.get("ignore_label", default_ignore_label(len(names))),
        dataset_ids=() if dataset_ids == tuple(range(len(names))) else dataset_ids,
    )


def metadata_of(labels: LabelSet) -> dict[str, Any]:
    """The metadata attributes that describe `labels`: what `labels_of` reads, under detectron2's names."""
    ids = labels.dataset_ids or tuple(range(labels.num_classes))
    values: dict[str, Any] = {"ignore_label": labels.ignore_label}
    if labels.thing_ids:
        values["thing_classes"] = [labels.names[i] for i in labels.thing_ids]
        values["thing_dataset_id_to_contiguous_id"] = {ids[i]: i for i in labels.thing_ids}
        if labels.colors:
            values["thing_colors"] = [list(labels.colors[i]) for i in labels.thing_ids]
    if len(labels.thing_ids) < labels.num_classes:
        values["stuff_classes"] = [*labels.names]
        values["stuff_dataset_id_to_contiguous_id"] = {ids[i]: i for i in labels.stuff_ids}
        if labels.colors:
            values["stuff_colors"] = [list(color) for color in labels.colors]
    return values
