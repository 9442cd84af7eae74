"""The command line is `fashion-tuning`, also `python -m pipelines`."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from components.errors import ParameterError, reporting
from pipelines.interruption import StoppedError

PROGRAM = "fashion-tuning"
COMMANDS = {
    "sample-data": (
        "pipelines.commands.data:sample_data_command",
        "Write the generated sample in the published formats.",
    ),
    "ingest": ("pipelines.commands.data:ingest_command", "Ingest one dataset and nothing else."),
    "run": ("pipelines.commands.run:run_command", "Run the whole pipeline on this machine."),
    "tune": (
        "pipelines.commands.tune:tune_command",
        "Search one approach on one dataset, train its winner and score it.",
    ),
    "compile": ("pipelines.commands.compile:compile_command", "Compile the pipeline for a cluster."),
    "preflight": ("pipelines.commands.preflight:preflight_command", "Check what would stop a run on a cluster."),
    "submit": ("pipelines.commands.submit:submit_command", "Start a run on a cluster."),
    "schedule": (
        "pipelines.commands.schedule:schedule_command",
        "Make sure that exactly one recurring run exists on a cluster.",
    ),
    "predict": ("pipelines.commands.predict:predict_command", "Say which class pictures show."),
    "images": ("pipelines.commands.images:images_command", "Build, push and lock the container images."),
    "study": ("pipelines.commands.study:study_group", "Look at studies."),
    "runs": ("pipelines.commands.runs:runs_group", "Look at the results of runs that ended well."),
    "champion": (
        "pipelines.commands.champion:champion_group",
        "Look at the champion of a dataset, go back to an earlier one, hand it to servers, or register it.",
    ),
}
"""Where each command is, and what the list of commands says of it: listing them must not import them all."""


STOPPED = "stopped before it was done. Run the same command again"


class _Terminated(BaseException):
    """SIGTERM arrived. No `Exception`: what goes on after an error of ours must not go on after this."""


class _LazyGroup(click.Group):
    """Imports a command's module only when it is called."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name][0].partition(":")
        return getattr(import_module(module), attribute)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def shell_complete(self, context: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [CompletionItem(n, help=text) for n, (_, text) in COMMANDS.items() if n.startswith(incomplete)]
        return names + click.Command.shell_complete(self, context, incomplete)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Is a tuned MLP enough for fashion images, or does a tuned ResNet18 earn its GPU hours?"""


def run(arguments: list[str]) -> int:
    """Run a command; return its sysexits code."""
    command = next((a for a in arguments if not a.startswith("-")), PROGRAM)
    if "--debug" in arguments:
        os.environ["FASHION_TUNING_DEBUG"] = "1"
    name = PROGRAM if Path(sys.argv[0]).name == PROGRAM else "python -m pipelines"
    try:
        with reporting(command):
            try:
                return main(arguments, prog_name=name, standalone_mode=False) or 0
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                return 0
            except (click.Abort, KeyboardInterrupt):
                raise StoppedError(signal.SIGINT, STOPPED) from None
            except _Terminated:
                raise StoppedError(signal.SIGTERM, STOPPED) from None
            except click.UsageError as error:
                raise ParameterError(f"{error.format_message()} See --help") from None
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 70


def program() -> int:
    """Run the command that this process was started with; `fashion-tuning` calls it."""
    signal.signal(signal.SIGTERM, _terminate)
    return run(sys.argv[1:])


def _terminate(number: int, _frame: object) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one does not wait for what is put in order
    raise _Terminated


if __name__ == "__main__":
    sys.exit(program())
