"""`python -m internvl_lab <command>`: one small module of `cli/` per command."""

from internvl_lab.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
