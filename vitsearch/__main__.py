"""The command line: `vitsearch`, and `python -m vitsearch`.

Importing takes a moment, in which Ctrl-C must not print a traceback: only what is imported here
comes before `main`.
"""

import gc
import sys


def main() -> None:
    """Run the command line and exit; 130 without a word for Ctrl-C while it is imported."""
    gc.set_threshold(10_000)  # what imports make is no garbage: to look for some takes 15 ms
    try:
        from vitsearch.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
