"""PyAV, which reads and writes video files. It is an extra: folders of frames need none."""

from __future__ import annotations

from types import ModuleType

from mask2former.utils.errors import UserError


def import_av(purpose: str) -> ModuleType:
    """The module `av`; `purpose`, such as "Reading clip.mp4", opens the message that says how to install it."""
    try:
        import av
    except ImportError as error:
        raise UserError(
            f"{purpose} needs PyAV ({error}). Install it: pip install 'av>=17'. A folder of frames as input "
            "and as output needs none."
        ) from error
    av.logging.set_level(av.logging.PANIC)  # what matters is raised; the rest would break the progress bar
    return av
