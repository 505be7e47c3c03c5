"""Main: `python -m microorm` is the command line."""

from microorm.cli import main

if __name__ == "__main__":
    main()
