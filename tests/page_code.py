"""Code and commands of the pages, as a reader takes them over into a folder.

An HTML comment above a block, such as ``<!-- snippet: shown, because ... -->``, says that the block is treated
otherwise than by default (`USES`); ``<!-- snippets: ... -->`` says so of a whole page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
USES = {
    "run": "carried out, which is the default",
    "first": "carried out before the others",
    "file": "written into the file that is named, as is a block whose first line is `# NAME`",
    "parsed": "commands are checked and not carried out, for the reason that follows",
    "shown": "not for readers to carry out, for the reason that follows; Python is parsed",
}
SHOWN = ("text", "mermaid", "json", "toml", "nginx", "ini")
"""Languages of blocks that nobody carries out."""
PROGRAMS = ("subfl", "flwr", "make", "pip", "python", "docker", "sudo", "export", "cd", "head")
"""First words of indented blocks that are commands; others are quoted text."""
_BLOCK = re.compile(
    r"(?:^<!-- snippet: (?P<use>\w+)(?:, (?P<reason>[^>]+?))? -->\n+)?"
    r"(?:^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<fenced>.*?)^(?P=fence)$"
    r"|(?<=\n\n)(?P<indented>(?:^ {4}[^\n]*\n)+))",
    re.DOTALL | re.MULTILINE,
)


@dataclass(frozen=True)
class Block:
    """A block of code of a page.

    Attributes:
        language: ``python``, ``yaml``, ``bash``, or that of a block of another kind.
        text: the content, without the first line where that is a file's name.
        line: number of the block's first line in the page.
        use: one of `USES`.
        reason: why it is not carried out; empty where it is.
        file: name of the file whose content this is; empty for none.
    """

    language: str
    text: str
    line: int
    use: str = "run"
    reason: str = ""
    file: str = ""


def blocks_of(page: Path) -> list[Block]:
    """The blocks of code of a page, in its order."""
    text = page.read_text()
    whole = re.search(r"^<!-- snippets: (\w+)(?:, ([^>]+?))? -->$", text, re.MULTILINE)
    use, reason = (whole[1], whole[2] or "") if whole else ("run", "")
    found = []
    for match in _BLOCK.finditer(text):
        content = match["fenced"]
        if content is None:
            content = re.sub(r"^ {4}", "", match["indented"], flags=re.MULTILINE)
            if content.split()[0] not in PROGRAMS:
                continue
        language = match["language"] or "bash"
        line = text.count("\n", 0, match.start("fenced" if match["fenced"] is not None else "indented")) + 1
        own = (match["use"], match["reason"] or "") if match["use"] else (use, reason)
        if language in SHOWN:
            own = ("shown", f"it is {language}")
        name = re.match(r"# ([\w/.-]+\.\w+)\n", content) if language in ("python", "yaml") else None
        content, file = (content[name.end() :], name[1]) if name else (content, "")
        if own[0] == "file":
            own, file = ("run", ""), own[1]
        found.append(Block(language, content, line, *own, file=file))
    return found


def commands_of(text: str) -> Iterator[str]:
    """The commands of a shell's block, one a line: continued lines are joined, and comments and variables replaced."""
    variables: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if assigned := re.fullmatch(r"""(\w+)=("[^"]*"|'[^']*'|\S*)""", line):
            variables[assigned[1]] = assigned[2].strip("\"'")
            continue
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        yield from (part.strip() for part in line.split(" && ") if part.strip())


def blocks(page: str, language: str) -> list[str]:
    """The blocks of a page of the documentation in a language."""
    return [block.text for block in blocks_of(DOCS / page) if block.language == language]


def write_method(folder: Path) -> Path:
    """Write the method of the page on methods into a folder."""
    return write_files(DOCS / "new_method.md", folder)


def modules() -> dict[str, str]:
    """Modules of the page on other classes, by the path that the first line of each states."""
    return {block.file: block.text for block in blocks_of(DOCS / "your_code.md") if block.language == "python"}


def write_modules(folder: Path) -> Path:
    """Write these modules, and the choice of a data set, into a folder."""
    return write_files(DOCS / "your_code.md", folder)


def write_files(page: Path, folder: Path) -> Path:
    """Write the files that a page holds into a folder."""
    for block in blocks_of(page):
        if block.file:
            (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
            (folder / block.file).write_text(block.text)
    return folder


def lines_of_code(code: str) -> int:
    """Lines without blanks, imports and docstrings."""
    tree, left_out = ast.parse(code), set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            left_out |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            text = node.body[0]
            left_out |= set(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    lines = enumerate(code.splitlines(), start=1)
    return sum(bool(line.strip()) and number not in left_out for number, line in lines)
