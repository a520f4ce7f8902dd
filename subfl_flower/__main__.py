"""``python -m subfl_flower``: the `subfl` command."""

from subfl_flower.cli import main

if __name__ == "__main__":
    main()
