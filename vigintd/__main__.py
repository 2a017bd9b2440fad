"""`python -m vigintd` is `vigintd`."""

from vigintd.cli import main

if __name__ == "__main__":
    main()
