"""Makes `mmdetection_names` importable to the tests here and below."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
