"""`python -m ppt`, and so `torchrun -m ppt`: the installed command `ppt`, whoever provides it.

The library knows no command line; it asks the installation for the one that goes by its name.
"""

import sys
from importlib.metadata import entry_points


def main() -> None:
    """Run the command of that name. Leaves with 2 where `ppt` was not installed."""
    found = next(iter(entry_points(group="console_scripts", name="ppt")), None)
    if found is None:
        print("ppt: there is no command of that name; install the package: pip install -e .", file=sys.stderr)
        sys.exit(2)
    found.load()()


if __name__ == "__main__":
    main()
