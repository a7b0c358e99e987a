"""`python -m worldfoundry` is the console script."""

from worldfoundry.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
