"""Names that a folder may have and that mean something in Hydra's grammar, in YAML, TOML, a shell or Flower."""

from __future__ import annotations

from pathlib import Path

AWKWARD_NAMES = (
    *(
        "a=b",
        "a#b",
        "# b",
        "~b",
        "a(b",
        "[b",
        "a]b",
        "{b",
        "a}b",
        "a'b",
        'a"b',
        "a&b",
        "a@b",
        "!b",
        "a%b",
        "a;b",
        "a,b",
    ),
    *("für", "a b", " b ", "a: b", "- b", "*b", "a$b", "a`b", "a\\b", "a\\'b", "a\\", "'a'b'", "a|b", "<b>", "a?b"),
    *("123", "1e5", "true", "nan", "0x1f", "2024-01-01", "choice(a)", "$(b)", "a=1 b=2"),
)
ALL_IN_ONE = "a=b #~([{'\"&@!%;,ü c"


def ring_of_people(folder: Path, clockwise: bool = True) -> Path:
    """Tables of a small graph with two classes in a new folder, which is returned."""
    folder.mkdir(parents=True)
    rows = [f"{node},{'ab'[node % 2]},{node % 2},{node % 3}" for node in range(24)]
    edges = [f"{node},{(node + (1 if clockwise else 23)) % 24}" for node in range(24)]
    (folder / "nodes.csv").write_text("\n".join(["id,label,x,y", *rows]) + "\n")
    (folder / "edges.csv").write_text("\n".join(["source,target", *edges]) + "\n")
    return folder
