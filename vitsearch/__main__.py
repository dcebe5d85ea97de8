"""`python -m vitsearch` is the command line."""

from vitsearch.cli import main

if __name__ == "__main__":
    main()
