"""``python -m crispseg`` is the command ``crispseg``."""

import sys

from crispseg.cli import main

sys.exit(main())
