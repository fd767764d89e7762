"""The ``voxmlx`` program: finds the command, turns errors into one line and an exit code.

A command is a module of this folder with a function ``run``, whose signature is its options and
whose docstring its help, and a text ``EXAMPLES``, one command a line. To add one, write its file
and add its name to :data:`COMMANDS`. Modules of commands import only what their options need, and
the rest inside ``run``, so that ``--help`` is quick and does not need optional packages.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
import typer.core

from voxmlx.cli.common import UsageError, print_error
from voxmlx.errors import VoxmlxError
from voxmlx.version import __version__

COMMANDS = ("transcribe", "live", "serve", "chat", "batch", "eval", "bench")

_INTERRUPTED = 130  # 128 + SIGINT, as shells count

EXAMPLES = """\
voxmlx transcribe talk.mp3
voxmlx transcribe *.mp4 --format srt --output-dir subtitles
voxmlx COMMAND --help"""


class _Commands(typer.core.TyperGroup):
    """The commands of :data:`COMMANDS`, each imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"voxmlx.cli.{cmd_name}")
        app = typer.Typer(add_completion=False)
        app.command(cmd_name, help=_help(inspect.getdoc(module.run) or "", module.EXAMPLES))(
            module.run
        )
        return typer.main.get_command(app)


def _help(text: str, examples: str) -> str:
    """Help as click reads it: a line for each paragraph; the backspace keeps line breaks."""
    paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return "\n\n".join([*paragraphs, f"\b\nExamples:\n{examples}"])


app = typer.Typer(
    help=_help("Live and offline speech to text with Voxtral, in MLX.", EXAMPLES),
    cls=_Commands,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"voxmlx {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take the options before the command."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code."""
    try:
        command = typer.main.get_command(app)
        code = command.main(list(arguments), prog_name="voxmlx", standalone_mode=False)
        sys.stdout.flush()
        if code == _INTERRUPTED:  # some versions of Typer catch Ctrl-C themselves
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except UsageError as error:
        context = getattr(error, "ctx", None)
        path = "voxmlx" if context is None else context.command_path
        message = error.format_message().rstrip(".")  # type: ignore[attr-defined]
        print_error(f"{message.replace('Value error, ', '')}; see '{path} --help'")
        return 2
    except VoxmlxError as error:
        print_error(str(error))
        return 1
    except BrokenPipeError:  # the reader of the output went away, as head does
        _discard_stdout()
        return 1
    except OSError as error:
        print_error(f"{error.filename or 'standard output'}: {error.strerror or error}")
        _discard_stdout()
        return 1
    except (KeyboardInterrupt, typer.Abort):
        print_error("interrupted")
        return _INTERRUPTED


def main() -> None:
    """Run the program."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(run(sys.argv[1:]))


def _discard_stdout() -> None:
    """Let Python's last flush of standard output at exit go nowhere instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
