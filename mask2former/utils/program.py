"""How programs end."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from mask2former.utils.errors import UserError


def exit_status(main: Callable[..., int | None], *args: Any, **kwargs: Any) -> int:
    """What `main(*args, **kwargs)` returns, None being 0; a UserError is printed, without a traceback, and gives 2."""
    try:
        return main(*args, **kwargs) or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
