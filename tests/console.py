"""The console script, and the type of the fixture that runs it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

SCRIPT = Path(sys.executable).with_name("imbcil-bench")
Cli = Callable[..., subprocess.CompletedProcess[str]]
