"""``python -m blt``: the command line, for torchrun and where ``blt`` is not on the path."""

import sys

from blt.cli import main

sys.exit(main())
