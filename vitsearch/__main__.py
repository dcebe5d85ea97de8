"""`python -m vitsearch` is the command line."""

from vitsearch.cli.main import main

if __name__ == "__main__":
    main()
