"""The command `imbcil-bench`: its subcommands, imported when they are asked for, and its one way to fail."""

import errno
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any

import click

from imbcil.harness.base.errors import ImbcilError

PROGRAM = "imbcil-bench"
COMMANDS = {  # each is imbcil.harness.cli.<name>.command; the words are its line in --help
    "run": "Train learners on a protocol; a stopped run continues.",
    "table": "Results of finished runs beside the published ones.",
    "plot": "Figures of runs: classes, predictions, weight norms, forgetting, gains.",
    "export": "Finished runs as one small CSV file.",
    "sweep": "A suite's grid of runs, such as dgr-ablation.",
    "status": "Runs of the store and how far they are.",
    "show": "What a protocol gives a learner: phases, classes, sizes, digest.",
    "list": "Learners, plug-ins, protocols, datasets, recipes.",
    "data": "List, download, import and check datasets.",
    "sync": "Deliver to MLflow what it does not have yet.",
    "ui": "Open MLflow's dashboard on this store.",
}
EXAMPLES = """\b
Examples:
  imbcil-bench run --protocol lfs --n-tasks 10
  imbcil-bench run --protocol lfs --n-tasks 10 --method icarl --method ./mine.py --seeds 0,1,2
  imbcil-bench show protocol lfs --n-tasks 10 --dataset cifar100-lt --recipe paper
  imbcil-bench data import cifar100 --from cifar100.npz
  imbcil-bench table --format markdown
"""
INTERRUPTED = 130
NO_ARGUMENTS = getattr(
    click.exceptions, "NoArgsIsHelpError", click.Abort
)  # click 8.2; before it, help just ends
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


class CommandLine(click.Group):
    """Imports a subcommand on demand and turns every expected error into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(f"imbcil.harness.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not name.startswith("-") and name not in COMMANDS:
            near = get_close_matches(name, COMMANDS, n=2)
            hint = f"did you mean {' or '.join(near)}" if near else f"known: {', '.join(COMMANDS)}"
            raise click.UsageError(f"There is no command called {name!r}; {hint}.", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does it, but from COMMANDS: `--help` imports no subcommand."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit: 0 done, 1 stopped under way, 2 bad input, 130 interrupted."""
        try:
            code = super().main(args, prog_name or PROGRAM, complete_var, standalone_mode=False, **extra)
        except click.Abort:
            _complain("Interrupted.")
            sys.exit(INTERRUPTED)
        except NO_ARGUMENTS as error:  # `imbcil-bench data` alone
            click.echo(str(error), err=True)
            sys.exit(2)
        except (ImbcilError, click.ClickException, ModuleNotFoundError, OSError) as error:
            if not _is_expected(error):
                raise
            _complain(_sentence(error))
            sys.exit(_exit_code(error))
        sys.exit(code if isinstance(code, int) else 0)


def _is_expected(error: Exception) -> bool:
    """Not our own bugs: a module of ours that is missing, an OSError that names no file."""
    if isinstance(error, ModuleNotFoundError):
        return not (error.name or "imbcil").startswith("imbcil")
    return not isinstance(error, OSError) or error.filename is not None


def _sentence(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        path = error.ctx.command_path if error.ctx else PROGRAM
        said = error.format_message().rstrip(".")
        return f"{said} See `{path} --help`." if said.endswith("?") else f"{said}; see `{path} --help`."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, ModuleNotFoundError):
        return f"The library {error.name} is not installed; `pip install {PROGRAM}` brings all that it needs."
    if isinstance(error, OSError):
        return f"Cannot use {error.filename}: {error.strerror}."
    return str(error)


def _exit_code(error: Exception) -> int:
    if isinstance(error, ImbcilError | click.ClickException):
        return error.exit_code if isinstance(error, ImbcilError) else 2
    return 1 if isinstance(error, OSError) and error.errno in DISK else 2


def _complain(sentence: str) -> None:
    """One line on stderr, whatever the message holds."""
    click.echo(f"Error: {' '.join(sentence.split())}", err=True)


@click.group(
    cls=CommandLine,
    invoke_without_command=True,
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(package_name=PROGRAM, message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A benchmark for imbalanced class-incremental learning: exact protocols, one contract for learners, tables
    beside the published numbers."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


if __name__ == "__main__":
    main()
