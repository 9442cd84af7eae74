"""The command line: `python -m pipelines`."""

import os
import sys
from importlib import import_module

import click

from components.errors import ParameterError, reporting

COMMANDS = {
    "sample-data": "pipelines.commands.data:sample_data_command",
    "ingest": "pipelines.commands.data:ingest_command",
    "run": "pipelines.local.run:run_command",
    "tune": "pipelines.commands.tune:tune_command",
    "compile": "pipelines.commands.compile:compile_command",
    "preflight": "pipelines.commands.preflight:preflight_command",
    "submit": "pipelines.commands.submit:submit_command",
    "schedule": "pipelines.commands.schedule:schedule_command",
    "images": "pipelines.commands.images:images_command",
    "study": "pipelines.commands.study:study_group",
    "champion": "pipelines.commands.champion:champion_group",
}


class _LazyGroup(click.Group):
    """Imports a command's module only when it is called: a usage error must not cost seconds."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[name].partition(":")
        return getattr(import_module(module), attribute)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Is a tuned MLP enough for fashion images, or does a tuned ResNet18 earn its GPU hours?"""


def run(arguments: list[str]) -> int:
    """Run a command; return its sysexits code."""
    command = next((a for a in arguments if not a.startswith("-")), "pipelines")
    if "--debug" in arguments:
        os.environ["FASHION_TUNING_DEBUG"] = "1"
    try:
        with reporting(command):
            try:
                return main(arguments, prog_name="python -m pipelines", standalone_mode=False) or 0
            except click.exceptions.NoArgsIsHelpError as error:
                error.show()
                return 0
            except click.Abort:
                raise KeyboardInterrupt from None
            except click.UsageError as error:
                raise ParameterError(f"{error.format_message()} See --help") from None
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else 70


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
