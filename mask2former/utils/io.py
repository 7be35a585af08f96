"""Paths and addresses of files: local ones, http(s) ones, and detectron2's own scheme."""

from __future__ import annotations

from pathlib import Path
from urllib import request
from urllib.parse import urlparse

from iopath.common.file_io import HTTPURLHandler, PathHandler, PathManager, file_lock, get_cache_dir
from tqdm import tqdm

from mask2former.utils.errors import UserError
from mask2former.utils.text import suggest

# where detectron2's "detectron2://" addresses point, as published in its model zoo
DETECTRON2_PREFIX = "detectron2://"
DETECTRON2_HOST = "https://dl.fbaipublicfiles.com/detectron2/"


class _HttpHandler(HTTPURLHandler):
    """Keeps files where iopath's own does, and shows nothing of a download that cannot begin: its error tells that."""

    def _get_local_path(self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs) -> str:
        self._check_kwargs(kwargs)
        folder = Path(get_cache_dir(cache_dir)) / urlparse(path).path.lstrip("/")
        target = folder.with_name(path.rpartition("/")[2])  # with the query, as iopath has it
        with file_lock(str(target)):
            if force or not target.is_file():
                _download(path, target)
        return str(target)


def _download(address: str, target: Path) -> None:
    """Fetch a file whole or not at all, with a bar from the first bytes on."""
    part, bar = Path(f"{target}.tmp"), None

    def show(blocks: int, size: int, total: int) -> None:
        nonlocal bar
        bar = bar or tqdm(total=total if total > 0 else None, desc=target.name, unit="B", unit_scale=True)
        bar.update(min(blocks * size, bar.total or blocks * size) - bar.n)  # the last block is rarely full

    try:
        request.urlretrieve(address, part, reporthook=show)
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
        if bar is not None:
            bar.close()


class _Detectron2Handler(PathHandler):
    """`detectron2://a/b.pkl`: the file a/b.pkl on detectron2's download host, kept in iopath's cache folder."""

    def __init__(self, manager: PathManager):
        super().__init__()
        self._manager = manager

    def _get_supported_prefixes(self) -> list[str]:
        return [DETECTRON2_PREFIX]

    def _get_local_path(self, path: str, force: bool = False, **kwargs) -> str:
        return self._manager.get_local_path(self._address(path), force=force, **kwargs)

    def _open(self, path: str, mode: str = "r", **kwargs):
        return self._manager.open(self._address(path), mode, **kwargs)

    @staticmethod
    def _address(path: str) -> str:
        return DETECTRON2_HOST + path[len(DETECTRON2_PREFIX) :]


def _make_path_manager() -> PathManager:
    manager = PathManager()
    manager.register_handler(_HttpHandler())
    manager.register_handler(_Detectron2Handler(manager))
    return manager


path_manager = _make_path_manager()


def local_path(path_or_url: str, key: str = "MODEL.WEIGHTS") -> str:
    """A path of this machine that holds the file; an address is downloaded once and kept in iopath's cache.

    Args:
        path_or_url: a path (`~` allowed), an http(s) address or a detectron2:// one.
        key: the key or flag that named the file, for the message.

    Raises:
        UserError: no such file, or the address could not be read.
    """
    if "://" in path_or_url:
        try:
            return path_manager.get_local_path(path_or_url)
        except Exception as error:  # sockets, certificates, HTTP status: iopath lets all of them through
            raise UserError(
                f"{path_or_url} could not be downloaded ({type(error).__name__}: {error}). Download it where there is "
                f"a network and set {key} to the path of the local file."
            ) from error
    path = Path(path_or_url).expanduser()
    if path.is_file():
        return str(path)
    if not path.parent.is_dir():
        raise UserError(f"No file {path}: the folder {path.parent} does not exist. Correct {key}.")
    if path.is_dir():
        raise UserError(f"{path} is a folder, a file was expected. Correct {key}.")
    siblings = sorted(p.name for p in path.parent.iterdir() if p.is_file())
    raise UserError(f"No file {path}.{suggest(path.name, siblings)} Correct {key}.")
