"""Names of data sets: where their records come from and what their class numbers mean."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from mask2former.structures import LabelSet, builtin_labels
from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

_INSTANCE_EVALUATORS = ("coco", "cityscapes_instance", "ytvis")  # of data sets whose classes are `thing_classes`


@dataclass(frozen=True)
class Consulted:
    """Source of the records that another catalog has under a name."""

    catalog: Any
    name: str

    def __call__(self) -> list[dict]:
        return self.catalog.get(self.name)


class _DatasetCatalog:
    """Data set name -> function without arguments that returns the records, a list of dicts, one per image.

    Each has "file_name", and "image_id", "height" and "width" (pixels, after EXIF orientation), which are read from
    the files where they are missing. Ground truth is "sem_seg_file_name", a map of class numbers; "annotations", a
    list of objects as `load_coco_json` describes them; or "pan_seg_file_name" and "segments_info", see
    `load_coco_panoptic_json`. A record of a video has "file_names" instead, and "annotations" for each frame, see
    `load_ytvis_json`.
    """

    def __init__(self) -> None:
        self._sources: dict[str, Callable[[], list[dict]]] = {}
        self._consulted: list[Any] = []
        self._borrowed: dict[str, Consulted] = {}

    def consult(self, catalog: Any) -> None:
        """Ask `catalog` (anything with `get`, `list` and `in`) for names that are not registered here.

        Data sets that are registered with the real detectron2 are found this way.
        """
        if catalog is not self and catalog not in self._consulted:
            self._consulted.append(catalog)

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
        for catalog in self._consulted:
            if name in catalog:
                return self._borrowed.setdefault(name, Consulted(catalog, name))
        if builtin_labels(name):
            raise UserError(
                f"The class names of data set {name!r} are known, but no reader of its records is registered: "
                "register_builtin has not run, or this version has none. Register one with "
                f"DatasetCatalog.register({name!r}, ...) in a module named under IMPORTS."
            )
        names = self.list()
        raise UserError(
            f"Unknown data set {name!r}.{_similar(name, names)} Known: {', '.join(sorted(names)) or 'none'}. "
            "Register it in a module named under IMPORTS, or describe its files under DATASETS.CUSTOM (its name is "
            "then <entry>_<split>)."
        )

    def get(self, name: str) -> list[dict]:
        """The records of data set `name`, read now."""
        return self.source(name)()

    def list(self) -> list[str]:
        """All names, in the order of registration, those of consulted catalogs last."""
        return [*dict.fromkeys([*self._sources, *(name for one in self._consulted for name in one.list())])]

    def remove(self, name: str) -> None:
        """Forget `name`."""
        self.pop(name)

    def pop(self, name: str) -> Callable[[], list[dict]]:
        """Forget `name` and return its source."""
        func = self.source(name)
        self._sources.pop(name, None)
        return func

    def clear(self) -> None:
        """Forget every name."""
        self._sources.clear()

    def __contains__(self, name: object) -> bool:
        return name in self._sources or any(name in catalog for catalog in self._consulted)

    def __iter__(self) -> Iterator[str]:
        return iter(self.list())

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
        self._consulted: list[Any] = []

    def consult(self, catalog: Any) -> None:
        """Copy the metadata of names that are not here from `catalog` (with `get` and `in`) when they are asked for."""
        if catalog is not self and catalog not in self._consulted:
            self._consulted.append(catalog)

    def get(self, name: str) -> Metadata:
        """The metadata of `name`; always the same object for one name."""
        if name not in self._entries:
            theirs = next((catalog.get(name).as_dict() for catalog in self._consulted if name in catalog), {})
            self._entries[name] = Metadata(name).set(**theirs)
        return self._entries[name]

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


def _similar(name: str, names: list[str], count: int = 3) -> str:
    """ " Did you mean 'a' or 'b'?", or "" when no name is near enough."""
    near = difflib.get_close_matches(name, names, n=count)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()


def register_anew(name: str, source: Callable[[], list[dict]], metadata: dict[str, Any]) -> None:
    """Register a data set with its metadata, in place of whatever had the name."""
    for catalog in (DatasetCatalog, MetadataCatalog):
        if name in catalog:
            catalog.remove(name)
    DatasetCatalog.register(name, source)
    MetadataCatalog.get(name).set(**metadata)


def default_ignore_label(num_classes: int) -> int:
    """The ignore value of a data set that states none: the last one of 8 bits, or of 16 where that is a class."""
    return 255 if num_classes <= 255 else 65535


def labels_of(metadata: Metadata) -> LabelSet:
    """The classes that a data set's metadata describes, in the order of the model's outputs.

    `stuff_classes` lists all classes of a semantic or panoptic data set, things included; `thing_classes` those of an
    instance data set. Things are the classes that `thing_dataset_id_to_contiguous_id` maps to, or without such a map
    those of `thing_classes`. What the metadata of a published data set leaves out comes from its label table.
    Where there is no class name, the records are read: readers of COCO files take the classes from there.

    Raises:
        UserError: no class name even then.
    """
    kind = _kind_of_classes(metadata)
    if not kind and metadata.name in DatasetCatalog:
        DatasetCatalog.get(metadata.name)
        kind = _kind_of_classes(metadata)
    if not kind:
        raise UserError(
            f"Data set {metadata.name!r} has no class names. Set them where it is registered: "
            f"MetadataCatalog.get({metadata.name!r}).set(stuff_classes=[...], ignore_label=255)."
        )
    names = tuple(metadata.get(f"{kind}_classes"))
    things = _thing_ids(metadata, names)
    stuff_map = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
    own = {i: int(own) for own, i in stuff_map.items()} if kind == "stuff" else {}
    thing_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    own.update({i: int(own) for own, i in thing_map.items() if i in things})
    own_ids = tuple(own.get(i, i) for i in range(len(names)))
    published = builtin_labels(metadata.name)
    if not published or published.names != names:
        published = LabelSet(names, ignore_label=default_ignore_label(len(names)))
    return LabelSet(
        names=names,
        thing_ids=things or published.thing_ids,
        colors=tuple(tuple(map(int, c)) for c in metadata.get(f"{kind}_colors") or ()) or published.colors,
        ignore_label=metadata.get("ignore_label", published.ignore_label),
        dataset_ids=published.dataset_ids if own_ids == tuple(range(len(names))) else own_ids,
    )


def _kind_of_classes(metadata: Metadata) -> str:
    """Which list names the classes, "stuff" or "thing"; "" when there is none."""
    kinds = ("thing", "stuff") if metadata.get("evaluator_type") in _INSTANCE_EVALUATORS else ("stuff", "thing")
    return next((kind for kind in kinds if metadata.get(f"{kind}_classes")), "")


def _thing_ids(metadata: Metadata, names: tuple[str, ...]) -> tuple[int, ...]:
    thing_map = metadata.get("thing_dataset_id_to_contiguous_id") or {}
    thing_names = set(metadata.get("thing_classes") or (names if thing_map else ()))
    numbers = set(thing_map.values()) if thing_map else range(len(names))
    return tuple(i for i in sorted(numbers) if i < len(names) and names[i] in thing_names)


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
