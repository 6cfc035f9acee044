"""``python -m valleys``: the commands of `valleys.cli`."""

import sys

from valleys.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
