"""Write docs/commands.md: every command with its options, from the signatures of the program."""

from __future__ import annotations

import enum
import importlib
import inspect
import types
import typing
from pathlib import Path
from typing import Any

from voxmlx.cli.main import COMMANDS

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"


def page() -> str:
    """The whole page."""
    parts = ["# Commands\n", "Made by `python scripts/command_docs.py`.\n"]
    for name in COMMANDS:
        parts += section(name, importlib.import_module(f"voxmlx.cli.{name}"))
    return "\n".join(parts)


def section(name: str, module: Any) -> list[str]:
    """One command: what it does, examples, arguments and options."""
    text = inspect.getdoc(module.run) or ""
    parts = [f"## voxmlx {name}\n", text + "\n", f"```bash\n{module.EXAMPLES}\n```\n"]
    parts += ["| Option | Meaning |", "|---|---|"]
    hints = typing.get_type_hints(module.run, include_extras=True)
    for parameter in inspect.signature(module.run).parameters.values():
        kind, info = unwrap(hints[parameter.name])
        parts.append(f"| {spelling(parameter.name, kind, info)} | {meaning(parameter, info)} |")
    return [*parts, ""]


def unwrap(hint: Any) -> tuple[Any, Any]:
    """Type and Typer's description of a parameter, without ``None``."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(each for each in typing.get_args(hint) if each is not type(None))
    kind, info = typing.get_args(hint)[:2]
    if isinstance(kind, types.UnionType):
        kind = next(each for each in typing.get_args(kind) if each is not type(None))
    return kind, info


def spelling(name: str, kind: Any, info: Any) -> str:
    """How an option is written, with the name of its value."""
    if type(info).__name__ == "ArgumentInfo":
        return f"`{escape(info.metavar or name.upper())}`"
    # Inside Annotated, Typer keeps the first spelling where the default would be.
    first = [info.default] if isinstance(info.default, str) else []
    given = [*first, *(info.param_decls or ())] or [f"--{name.replace('_', '-')}"]
    names = ", ".join(f"`{each}`" for each in given)
    if kind is bool:
        return names
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        value = "|".join(str(each.value) for each in kind)
    else:
        value = getattr(kind, "__name__", "value").upper()
    return f"{names} `{escape(info.metavar or value)}`"


def meaning(parameter: inspect.Parameter, info: Any) -> str:
    """The help text, with the default where it is a plain value."""
    text = (info.help or "").strip()
    default = getattr(parameter.default, "value", parameter.default)
    plain = isinstance(default, (int, float, str)) and not isinstance(default, bool)
    if plain and "Default" not in text:
        text += f" Default: {default}."
    return escape(text)


def escape(text: str) -> str:
    """Text that a cell of a table can hold."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
