"""The command line: words to one call, a mistake to one line and exit code 2."""

import contextlib
import errno
import io
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

from affinitynet import __version__
from affinitynet.command_line import interrupts
from affinitynet.command_line.apply import APPLY, apply
from affinitynet.command_line.correct import CORRECT, correct
from affinitynet.command_line.ending import say_results
from affinitynet.command_line.export import EXPORT, export
from affinitynet.command_line.init import IMAGES, INIT, PAGE, Layout, Tags, init, read_or_say
from affinitynet.command_line.parser import (
    JSON,
    RUN,
    Argument,
    Parser,
    argument,
    choice,
    print_json,
    switch,
)
from affinitynet.command_line.predict import PREDICT, predict
from affinitynet.command_line.reproduce import REPRODUCE, reproduce
from affinitynet.command_line.status import STATUS, status
from affinitynet.command_line.sweep import SWEEP, split_values, sweep
from affinitynet.command_line.tune import TUNE, tune
from affinitynet.command_line.view import VIEW, view
from affinitynet.engine import stopping
from affinitynet.errors import UserError, did_you_mean
from affinitynet.progress import detail, messages_at

ENGINES = ("here", "ray")

# What takes long to import is imported inside the commands, so that --help answers at once.


def demo(out: Path) -> None:
    """Make a toy data set, run all stages on it, write the report."""
    from affinitynet.data.toy import make_toy
    from affinitynet.progress import say

    data = out / "toy"
    if not (data / "labels.csv").is_file():
        say(f"making toy images in {data}")
        make_toy(data)
    run(Path("demo"), data, out / "run", until=None, redo=None, anyway=False, settings={})


def check(
    data: Path, format: Layout, tags: Tags, page: int | None, images: str | None, json: bool
) -> None:
    """Report what a data set holds and what is wrong with it.

    The exit code is 2 if a run on it would fail.
    """
    from affinitynet.data.check import check_dataset

    manifest = read_or_say(data, format, tags, images, print_json if json else None)
    findings = check_dataset(manifest, page)
    if json:
        print_json(findings.as_dict())
    else:
        from affinitynet.report.findings import print_findings

        print_findings(findings)
    if count := len(findings.problems):
        raise UserError(f"{data}: {count} problem{'s' * (count > 1)}; see the list above")


def run(
    recipe: Path,
    data: Path | None,
    out: Path | None,
    until: str | None,
    redo: str | None,
    anyway: bool,
    settings: dict[str, Any],
    shard: str | None = None,
    seeds: list[int] | None = None,
    engine: str = "here",
    processes: int | None = None,
    ranks: int = 1,
) -> None:
    """Run a recipe, or continue it where its run folder left off.

    Every setting of the recipe is a flag as well, as in `--walk.beta 10 --cams.scales 0.5 1`. They
    are listed below; `affinitynet settings RECIPE` lists a recipe's own values.
    """
    from affinitynet.run_folder.recipe import Recipe

    given = {"data": data, "out": out}
    settings |= {key: value for key, value in given.items() if value is not None}
    loaded = Recipe.load(recipe, **settings)
    detail(f"data set {loaded.data}, run folder {loaded.out}")

    from affinitynet.command_line.over_ray import run_with_ray
    from affinitynet.command_line.seeds import run_seeds
    from affinitynet.engine.place import placed, read_place
    from affinitynet.pipeline import run as run_recipe

    stopping.watch_termination()
    work = partial(run_recipe, until=until, redo=redo, anyway=anyway)
    if engine == "ray":
        work = partial(run_with_ray, **work.keywords, processes=processes, ranks=ranks)
    with placed(read_place(shard) if shard else None):
        if seeds:
            run_seeds(loaded, seeds, work)
            return
        ran = work(loaded)
    if ran.leads:  # the process that leads writes the report
        say_results(loaded.out)


def settings(recipe: Path | None, json: bool) -> None:
    """List every setting with its value and what it means.

    With a recipe, `*` marks the values that differ from the default.
    """
    from affinitynet.run_folder.flags import list_settings, show_value
    from affinitynet.run_folder.recipe import Recipe

    found = list(list_settings(Recipe.load(recipe) if recipe else Recipe(), Recipe()))
    if json:
        rows = [setting._asdict() | {"changed": setting.changed} for setting in found]
        print_json({"recipe": recipe, "settings": rows})
        return
    width = max(len(setting.name) for setting in found)
    for setting in found:
        mark, default = " ", ""
        if setting.changed:
            mark, default = "*", f" (default: {show_value(setting.default)})"
        value = show_value(setting.value)
        print(f"{mark} {setting.name:{width}}  {value:22}  {setting.meaning}{default}")


def report(run: Path, samples: int) -> None:
    """Write a run's report: metrics and pictures in one HTML file."""
    from affinitynet.report import write_report

    print(write_report(run, samples=samples))


def evaluate(run: Path, masks: Path | None, split: str | None, json: bool) -> None:
    """Compare masks, a run's or any folder's, with ground truth."""
    from affinitynet.evaluating import evaluate_run
    from affinitynet.pipeline import Run

    opened = Run.open(run)
    classes = ("background", *opened.manifest.classes)
    rows = evaluate_run(opened, masks, split)
    if json:
        print_json({"classes": classes, "rows": rows})
    else:
        from affinitynet.report import print_figures

        print_figures(classes, rows)


def convert_weights(source: Path, target: Path) -> None:
    """Convert weights (MXNet, Caffe, PyTorch) to safetensors."""
    from affinitynet.models.weights import convert_weights

    print(convert_weights(source, target))


class Command(NamedTuple):
    """A function, and the arguments that become its parameters."""

    work: Callable[..., None]
    arguments: tuple[Argument, ...]

    @property
    def summary(self) -> str:
        """What the command does, in one line."""
        return (self.work.__doc__ or "").partition("\n")[0]


COMMANDS = {
    "demo": Command(
        demo,
        (
            argument(
                "--out",
                "folder for the data set and the run (default: runs/demo)",
                default=Path("runs/demo"),
            ),
        ),
    ),
    "check": Command(
        check,
        (
            argument("data", "folder of the data set, or the file that lists its tags"),
            choice("--format", "its layout", get_args(Layout)),
            choice("--tags", "where tags come from, if there are several sources", get_args(Tags)),
            PAGE,
            IMAGES,
            JSON,
        ),
    ),
    "run": Command(
        run,
        (
            argument("recipe", "a YAML file, or the name of a recipe of the package (own_images)"),
            argument("--data", "folder of the data set"),
            argument("--out", "run folder (default: runs/<name of the recipe>)"),
            argument("--until", "last stage to do", str),
            argument("--redo", "stage to do again, with all stages that depend on it", str),
            argument("--shard", "be process i of N on one run: i/N, from 0 (default: alone)", str),
            choice(
                "--engine",
                "who does the stages: this process, or workers of a Ray cluster",
                ENGINES,
            ),
            argument("--processes", "with ray: that label (default: as many as find room)", int),
            argument("--ranks", "with ray: that train together (default: 1)", int, default=1),
            argument("--seeds", "run each of these seeds beside the other", int, nargs="+"),
            switch("--anyway", "go on where the classifier has learned no class"),
        ),
    ),
    "apply": Command(apply, APPLY),
    "settings": Command(
        settings,
        (
            argument("recipe", "a YAML file, or the name of a recipe of the package", nargs="?"),
            JSON,
        ),
    ),
    "init": Command(init, INIT),
    "status": Command(status, STATUS),
    "tune": Command(tune, TUNE),
    "sweep": Command(sweep, SWEEP),
    "reproduce": Command(reproduce, REPRODUCE),
    "report": Command(
        report, (RUN, argument("--samples", "images to show (default: 12)", int, default=12))
    ),
    "evaluate": Command(
        evaluate,
        (
            RUN,
            argument("--masks", "folder of mask PNGs by image name (default: the run's masks)"),
            argument("--split", "split to compare --masks with", str),
            JSON,
        ),
    ),
    "view": Command(view, VIEW),
    "correct": Command(correct, CORRECT),
    "export": Command(export, EXPORT),
    "predict": Command(predict, PREDICT),
    "convert-weights": Command(
        convert_weights,
        (
            argument("source", ".params, .caffemodel, .pth or .safetensors file"),
            argument("target", ".safetensors file to write"),
        ),
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and carry out one command.

    Raises:
        SystemExit: with code 2 after a mistake in the input or a file that can't be read or
            written, 130 after Ctrl-C, 75 after SIGTERM, 141 when the reader of a pipe has gone, 1
            after a bug, or where some images of many failed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A pipe's encoding may lack a letter of a class name: it becomes a question mark.
            stream.reconfigure(errors="replace")
    if arguments is None:  # not where a program calls this: the signal is that program's
        interrupts.watch_interrupts()
    try:
        _carry_out(sys.argv[1:] if arguments is None else arguments)
        print(end="", flush=True)  # so that a broken pipe is noticed here
    except (Exception, KeyboardInterrupt) as error:
        code = report_error(error)
        if interrupts.was_interrupted():
            os._exit(code)  # all is undone: taking torch apart would take seconds
        sys.exit(code)
    finally:
        if arguments is not None:
            stopping.leave_termination()


def report_error(error: BaseException) -> int:
    """Print an error to stderr: one line, and before it the traceback of a bug; return the code."""
    if _is_broken_pipe(error):  # `affinitynet settings | head` has read enough
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a stdout without a file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    if isinstance(error, KeyboardInterrupt) or interrupts.was_interrupted():
        return _complain(interrupts.MESSAGE, interrupts.CODE) if interrupts.tell_once() else 130
    if isinstance(error, stopping.Stopped):
        return _complain(str(error), stopping.CODE)
    if isinstance(error, UserError):
        return _complain(str(error), error.code)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return _complain(f"{place}{error.strerror or error}", 2)
    traceback.print_exception(error)
    said = f"unexpected error; please report it with the traceback above and: {_versions()}"
    return _complain(said, 1)


def _is_broken_pipe(error: BaseException) -> bool:
    if isinstance(error, BrokenPipeError):
        return True
    closed = isinstance(error, OSError) and error.errno == errno.EINVAL and not error.filename
    return closed and sys.platform == "win32"  # which has no error of its own for it


def _complain(text: str, code: int) -> int:
    print(f"affinitynet: {' '.join(text.splitlines())}", file=sys.stderr)
    return code


def _carry_out(words: Sequence[str]) -> None:
    # Flags that all commands have may stand before the command's name too.
    place = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
    options = _read_main(words[:place])
    if place == len(words):
        raise UserError("no command given; see affinitynet --help")
    name = words[place].replace("_", "-")
    if name not in COMMANDS:
        hint = did_you_mean(name, COMMANDS) or f"choose from {', '.join(COMMANDS)}"
        raise UserError(f"no command {words[place]!r}: {hint}")
    options |= _read_command(name, words[place + 1 :])
    if (most := options.pop("max_pixels", None)) is not None:
        from affinitynet.data.images import allow_pixels

        allow_pixels(most)
    with messages_at(options.pop("level", logging.INFO)):
        detail(_versions)
        began = time.monotonic()
        COMMANDS[name].work(**options)
        detail(lambda: f"{name}: {time.monotonic() - began:.1f} s in all")


def _read_main(words: Sequence[str]) -> dict[str, Any]:
    arguments = (switch("--version", "print the versions of affinitynet, Python and torch"),)
    parser = Parser("affinitynet", "Image tags in, pixel masks out.", arguments)
    parser.usage = "affinitynet [options] COMMAND ..."
    lines = [f"  {name:17} {command.summary}" for name, command in COMMANDS.items()]
    more = "affinitynet COMMAND --help lists the arguments of one command"
    parser.epilog = "\n".join(["commands:", *lines, "", more])
    options = parser.read(words)
    if options.pop("version"):
        print(_versions(), flush=True)
        parser.exit()
    return options


def _read_command(name: str, words: Sequence[str]) -> dict[str, Any]:
    command = COMMANDS[name]
    parser = Parser(f"affinitynet {name}", command.work.__doc__ or "", command.arguments)
    if name == "sweep":
        words, values = split_values(words, parser.flags)
        return {**parser.read(words), "values": values}
    if name != "run":
        return parser.read(words)
    from affinitynet.run_folder.flags import split_flags
    from affinitynet.run_folder.recipe import Recipe

    # The settings come out first: a list takes any number of words, and argparse can't tell a
    # setting's value from the recipe's name.
    rest, settings = split_flags(Recipe, words, parser.flags)
    parser.add_settings(Recipe())
    return {**parser.read(rest), "settings": settings}


def _versions() -> str:
    """Return the versions that matter for a report of a bug; loads no torch."""
    import platform
    from importlib import metadata

    torch = "not installed"
    with contextlib.suppress(metadata.PackageNotFoundError):
        torch = metadata.version("torch")
    return f"affinitynet {__version__}, Python {platform.python_version()}, torch {torch}"
