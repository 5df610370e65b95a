"""Tests of benchmarks, which are scripts beside the packages."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
