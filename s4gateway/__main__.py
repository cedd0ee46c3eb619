"""`python -m s4gateway` is the command `s4`."""

from s4gateway.cli.main import main

if __name__ == "__main__":
    main()
