"""A stand-in for a part as a module, which the nursery can fork: `python -m stand_in_part part NAME`."""

import sys

from stand_in import main

if __name__ == "__main__":
    sys.exit(main())
