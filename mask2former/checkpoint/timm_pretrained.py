"""timm's own pretrained weights, from the local Hugging Face cache or downloaded."""

from __future__ import annotations

from huggingface_hub import constants, try_to_load_from_cache

from mask2former.checkpoint.loading import compare, copy_tensors
from mask2former.checkpoint.report import LoadReport
from mask2former.modeling.backbone.timm import TimmBackbone
from mask2former.utils.errors import UserError

PRETRAINED = "pretrained"  # the value of MODEL.TIMM.WEIGHTS that asks for them
_FILES = ("model.safetensors", "pytorch_model.bin")  # what timm looks for, in this order


def load_timm_pretrained(backbone: TimmBackbone, key: str = "MODEL.TIMM.WEIGHTS") -> LoadReport:
    """What ``timm.create_model(name, pretrained=True)`` has, into a backbone; positions and channels made to fit.

    A file in the Hugging Face cache is used without asking the network.

    Raises:
        UserError: timm has no weights for the model, or they are neither cached nor can be downloaded.
    """
    source = backbone.body.pretrained_cfg
    cached = _cached(source)
    overlay = {"pretrained_cfg_overlay": {"file": cached}} if cached else {}
    try:
        pretrained = backbone.create_body(pretrained=True, **overlay)
    except (OSError, RuntimeError) as error:
        raise UserError(_unavailable(backbone.name, source, key, error)) from error
    own = backbone.state_dict()
    # frozen batch norms have no counters
    weights = {f"body.{n}": t for n, t in pretrained.state_dict().items() if f"body.{n}" in own}
    report = compare(backbone, weights, f"timm/{backbone.name}: {cached or _address(source)}", _notes(backbone, source))
    copy_tensors(backbone, weights, report.matched)
    return report


def _cached(source: dict) -> str | None:
    names = (source["hf_hub_filename"],) if source.get("hf_hub_filename") else _FILES
    repository, _, revision = (source.get("hf_hub_id") or "").partition("@")
    for name in names if repository else ():
        found = try_to_load_from_cache(repository, name, revision=revision or None)
        if isinstance(found, str):  # else None, or a mark that the repository has no such file
            return found
    return None


def _address(source: dict) -> str:
    return f"https://huggingface.co/{source['hf_hub_id']}" if source.get("hf_hub_id") else source.get("url") or ""


def _notes(backbone: TimmBackbone, source: dict) -> tuple[str, ...]:
    """What the recipe has to agree with, in its own terms."""
    mean, std = ([round(255 * value, 3) for value in source[name]] for name in ("mean", "std"))
    notes = (f"trained on RGB with MODEL.PIXEL_MEAN {mean} and MODEL.PIXEL_STD {std}",)
    channels = source["input_size"][0]
    if channels != backbone.in_channels:
        notes += (f"first convolution: from {channels} to {backbone.in_channels} channels, repeated and scaled",)
    return notes


def _unavailable(name: str, source: dict, key: str, error: Exception) -> str:
    address = _address(source)
    if not address:
        return f"timm has no pretrained weights for '{name}': set {key} to a local file, or to '' for random weights."
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{key} is '{PRETRAINED}', but timm's weights of '{name}' are not in the cache {constants.HF_HUB_CACHE} and "
        f'could not be downloaded or used: {reason} Where there is a network, run `python -c "import timm; '
        f"timm.create_model('{name}', pretrained=True)\"` and copy that cache here (HF_HOME names another place); or "
        f"download {_FILES[0]} from {address} and set {key} to the file."
    )
