"""Write the map in AGENTS.md: one line a module, from the first line of its docstring.

python scripts/map.py            # rewrites the map
python scripts/map.py --check    # fails if it is stale
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "AGENTS.md"
START, END = "<!-- map -->\n", "<!-- end of map -->\n"
FOLDERS = ("voxmlx", "convert/voxmlx_convert", "benchmarks", "examples", "tests")


def map_lines() -> list[str]:
    """The map, line by line."""
    lines: list[str] = []
    for folder in FOLDERS:
        lines += ["", f"### {folder}/", ""]
        for path in sorted((ROOT / folder).rglob("*.py"), key=_order):
            first = _first_line(path)
            if first and not path.name.startswith("test_"):
                lines.append(f"- `{path.relative_to(ROOT / folder)}`: {first}")
    return lines


def _order(path: Path) -> tuple[str, bool, str]:
    return str(path.parent), path.name != "__init__.py", path.name


def _first_line(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    return "" if docstring is None else docstring.splitlines()[0]


def main() -> None:
    """Rewrite or check the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(START)
    _, after = rest.split(END)
    fresh = before + START + "\n".join(map_lines()) + "\n\n" + END + after
    if "--check" in sys.argv:
        sys.exit(None if fresh == page else "AGENTS.md is stale: run python scripts/map.py")
    PAGE.write_text(fresh, encoding="utf-8")


if __name__ == "__main__":
    main()
