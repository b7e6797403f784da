"""`python -m bench` runs all measurements."""

import sys

from bench.run import main

if __name__ == "__main__":
    sys.exit(main())
