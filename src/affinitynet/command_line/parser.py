"""argparse with one line for each mistake, the nearest known name, and the settings in the help.

argparse reports each mistake in one line, in every release of Python, and it starts fast.
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from inspect import cleandoc
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from affinitynet.errors import UserError, did_you_mean


class Argument(NamedTuple):
    """One argument of a command: its name, and its options for argparse's `add_argument`."""

    name: str
    options: dict[str, Any]


def read_path(word: str) -> Path:
    """Read a path; an empty word, as of an unset variable, is not the working folder.

    Raises:
        ArgumentTypeError: it is empty.
    """
    if not word:
        raise argparse.ArgumentTypeError("is empty; give a path (. is the working folder)")
    return Path(word)


def argument(
    name: str, help: str, kind: Callable[[str], Any] = read_path, **options: Any
) -> Argument:
    """Make an argument with a value: a flag if its name begins with `--`."""
    return Argument(name, {"help": help, "type": kind, **options})


def choice(name: str, help: str, known: Sequence[str]) -> Argument:
    """Make a flag that takes one of these words; the first is the default."""

    def read(word: str) -> str:
        if word not in known:
            hint = did_you_mean(word, known, cutoff=0.5) or f"choose from {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"no choice {word!r}: {hint}")
        return word

    options = {"metavar": "|".join(known), "default": known[0]}
    return argument(name, f"{help} (default: {known[0]})", read, **options)


def switch(name: str, help: str, **options: Any) -> Argument:
    """Make a flag without a value."""
    return Argument(name, {"help": help, "action": "store_true", **options})


RUN = argument("run", "run folder")
JSON = switch("--json", "print one JSON document instead of text")


def print_json(document: dict[str, Any]) -> None:
    """Print a document as JSON; what JSON has no word for, such as a path, as text."""
    import json

    print(json.dumps(document, indent=2, default=str))


VERBOSITY = (
    switch("--quiet", "print only warnings and errors", const=logging.WARNING),
    switch("--verbose", "also print times, files and versions", const=logging.DEBUG),
)
# Both set `level`, and only where they are given: before a command or after it.
for _, _options in VERBOSITY:
    _options |= {"action": "store_const", "dest": "level", "default": argparse.SUPPRESS}

MAX_PIXELS = argument(
    "--max-pixels",
    "allow images of up to this many pixels (default: 89,478,485, against files that fill memory)",
    int,
    metavar="N",
    default=argparse.SUPPRESS,
)
COMMON = (*VERBOSITY, MAX_PIXELS)


class Parser(argparse.ArgumentParser):
    """argparse's parser for one command, whose mistakes are a `UserError`."""

    def __init__(self, prog: str, description: str, arguments: Sequence[Argument]) -> None:
        """Make a parser for these arguments, and for the flags that every command has."""
        super().__init__(
            prog,
            description=cleandoc(description),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,  # a prefix would change its meaning with each new flag
        )
        arguments = (*arguments, *COMMON)
        for name, options in arguments:
            self.add_argument(name, **options)
        self.flags = ["-h", "--help", *(a.name for a in arguments if a.name.startswith("-"))]

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """Parse words into the command's parameters.

        Raises:
            UserError: an unknown flag, a missing or surplus argument, a value that does not fit.
            SystemExit: after --help.
        """
        # Before argparse does: it would name the missing --out first, and not its mistyped --ot.
        for word in words:
            flag = word.partition("=")[0]
            if flag.startswith("--") and flag not in self.flags:
                hint = did_you_mean(flag, self.flags)
                self.error(f"unknown flag {flag}{hint and ': '}{hint}")
        # Not parse_args, which would join all surplus words into one message of its own form.
        found, surplus = self.parse_known_args(words)
        if surplus:
            self.error(f"unexpected argument {surplus[0]!r}")
        return vars(found)

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print below its usage."""
        # A suggestion needs no pointer to the help.
        more = "" if message.endswith("?") else f"; see {self.prog} --help"
        raise UserError(f"{message.removeprefix('argument ')}{more}")

    def print_help(self, file: Any = None) -> None:
        """Print the help; argparse's own printing hides that a pipe's reader has gone."""
        print(self.format_help(), end="", file=file, flush=True)

    def add_settings(self, defaults: Any) -> None:
        """List each setting of a recipe in the help, section by section, with its default."""
        # Here, since the help alone needs them and their models take time to load.
        from affinitynet.run_folder.flags import list_settings, show_value

        self.usage = f"{self.prog} [options] recipe [--SETTING VALUE ...]"
        groups: dict[str, Any] = {}
        for setting in list_settings(defaults, defaults):
            section = setting.name.rpartition(".")[0]
            if f"--{setting.name}" in self.flags:  # --data and --out are among the options already
                continue
            if section not in groups:
                groups[section] = self.add_argument_group(f"settings: {section or 'the whole run'}")
            said = f"{setting.meaning} (default: {show_value(setting.default)})"
            options = {"metavar": setting.kind, "help": said.replace("%", "%%")}
            groups[section].add_argument(f"--{setting.name}", default=argparse.SUPPRESS, **options)
