"""Makes `toys` importable here and, since they inherit the path, in the processes that tests start."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
