"""Check results and speed on the accelerator of this machine; see ``benchmarks/accelerator``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.accelerator.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
