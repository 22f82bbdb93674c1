"""The command line: arguments to calls, errors to one line and exit code 2."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, subcommand

from affinitynet.errors import UserError

# Everything that needs torch is imported inside the commands: `--help` answers at once.


@dataclass
class Demo:
    """Make a small data set, run all stages on it, print the figures, write the report."""

    out: Path = Path("runs/demo")
    """Where data set and run folder go."""

    def __call__(self) -> None:
        """Run the demo recipe on the toy data."""
        from affinitynet.data.toy import make_toy
        from affinitynet.pipeline import run
        from affinitynet.progress import say
        from affinitynet.run_folder.recipe import Recipe

        data = self.out / "toy"
        if not (data / "labels.csv").is_file():
            say(f"making toy images in {data}")
            make_toy(data)
        run(Recipe.load("demo", data=data, out=self.out / "run"))
        _conclude(self.out / "run")


@dataclass
class Check:
    """Read a data set, say what it holds and what is wrong with it."""

    data: Positional[Path]
    """Folder of the data set."""
    format: Literal["auto", "voc", "table", "folder", "coco"] = "auto"
    """Its layout."""
    tags: Literal["auto", "table", "annotations", "masks"] = "auto"
    """Where tags come from, if there are several sources."""

    def __call__(self) -> None:
        """Print the findings; exit code 2 if a run would fail on them."""
        from affinitynet.data import read_dataset
        from affinitynet.data.check import check_dataset
        from affinitynet.report.findings import print_findings

        findings = check_dataset(read_dataset(self.data, format=self.format, tags=self.tags))
        print_findings(findings)
        if findings.problems:
            raise UserError(f"{self.data}: {len(findings.problems)} problems; see above")


@dataclass
class Run:
    """Run a recipe, or go on with it where its run folder left off.

    Any setting of the recipe can be given as a flag, e.g. --walk.beta 10 --seed 3;
    `affinitynet settings` lists them all.
    """

    recipe: Positional[Path]
    """YAML file, or the name of a recipe that comes with the package (demo, voc12_resnet38 ...)."""
    data: Path | None = None
    """Folder of the data set."""
    out: Path | None = None
    """Run folder; runs/<recipe> if not given."""
    until: str | None = None
    """Last stage to do."""
    redo: str | None = None
    """Stage to make anew, with all that follows from it."""

    def __call__(self, overrides: dict[str, Any]) -> None:
        """Load the recipe, do what is to do, print the figures."""
        from affinitynet.run_folder.recipe import Recipe

        given = {"data": self.data, "out": self.out}
        overrides |= {key: value for key, value in given.items() if value is not None}
        recipe = Recipe.load(self.recipe, **overrides)
        from affinitynet.pipeline import run

        run(recipe, until=self.until, redo=self.redo)
        _conclude(recipe.out)


@dataclass
class Settings:
    """List every setting of a recipe, with its default and what it means."""

    def __call__(self) -> None:
        """Print a line a setting."""
        from affinitynet.run_folder.recipe import Recipe, describe

        for key, default, meaning in describe(Recipe):
            print(f"{key:28} {default!s:24} {meaning}")


@dataclass
class Status:
    """Say how far each stage of a run is."""

    run: Positional[Path]
    """Run folder."""

    def __call__(self) -> None:
        """Print a line a stage."""
        from affinitynet.pipeline import Run as OpenRun

        for status in OpenRun.open(self.run).status():
            seconds = f"  {status.seconds:8.0f} s" if status.seconds else ""
            print(f"{status.name:18} {status}{seconds}")


@dataclass
class Report:
    """Write a run's report: one HTML file with its figures and a sample of its pictures."""

    run: Positional[Path]
    """Run folder."""
    samples: int = 12
    """Images to show."""

    def __call__(self) -> None:
        """Write the report and say where it is."""
        from affinitynet.pipeline import Run as OpenRun
        from affinitynet.report import write_report

        states = {status.name: str(status) for status in OpenRun.open(self.run).status()}
        print(write_report(self.run, samples=self.samples, states=states))


@dataclass
class Evaluate:
    """Compare a run's masks, or any folder of masks, with ground truth."""

    run: Positional[Path]
    """Run folder: its data set says what is true."""
    masks: Path | None = None
    """Folder of mask PNGs by image name; the run's own masks if not given."""
    split: str | None = None
    """Split that --masks is measured on."""

    def __call__(self) -> None:
        """Print the table of figures."""
        from affinitynet.pipeline import Run as OpenRun
        from affinitynet.pipeline import evaluate_folder
        from affinitynet.report import print_figures

        opened = OpenRun.open(self.run)
        if self.masks:
            classes = ("background", *opened.manifest.classes)
            print_figures(classes, [evaluate_folder(opened, self.masks, self.split)])
            return
        print_figures(("background", *opened.manifest.classes), opened.evaluate())


@dataclass
class Export:
    """Copy a run's masks out, in a layout other tools read."""

    run: Positional[Path]
    """Run folder."""
    out: Path
    """New folder to write to."""
    format: Literal["voc", "png"] = "voc"
    """voc: a devkit folder to train on; png: the masks alone."""
    stage: Literal["pseudo", "walk", "confident", "predictions"] = "pseudo"
    """Which masks."""

    def __call__(self) -> None:
        """Export and say where to."""
        from affinitynet.export import export_run

        print(export_run(self.run, self.out, format=self.format, stage=self.stage))


@dataclass
class Predict:
    """Segment photographs with a run's trained network."""

    run: Positional[Path]
    """Run folder."""
    images: Positional[Path]
    """An image, or a folder of images."""
    out: Path
    """Folder for the masks (palette PNGs)."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the network runs."""

    def __call__(self) -> None:
        """Write a mask an image."""
        from affinitynet.stages.predict import predict_folder

        print(predict_folder(self.run / "segmenter", self.images, self.out, self.device))


@dataclass
class ConvertWeights:
    """Turn published weights (MXNet, Caffe, PyTorch) into a safetensors file."""

    source: Positional[Path]
    """.params, .caffemodel, .pth or .safetensors file."""
    target: Positional[Path]
    """.safetensors file to write."""

    def __call__(self) -> None:
        """Convert and say what was recognised, dropped and missing."""
        from affinitynet.models.weights import convert

        print(convert(self.source, self.target))


Command = (
    Annotated[Demo, subcommand("demo")]
    | Annotated[Check, subcommand("check")]
    | Annotated[Run, subcommand("run")]
    | Annotated[Settings, subcommand("settings")]
    | Annotated[Status, subcommand("status")]
    | Annotated[Report, subcommand("report")]
    | Annotated[Evaluate, subcommand("evaluate")]
    | Annotated[Export, subcommand("export")]
    | Annotated[Predict, subcommand("predict")]
    | Annotated[ConvertWeights, subcommand("convert-weights")]
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and carry out one command."""
    command, unknown = tyro.cli(
        Command,
        prog="affinitynet",
        description="Image tags in, pixel masks out.",
        args=arguments,
        return_unknown_args=True,
        config=(tyro.conf.FlagConversionOff,),
    )
    try:
        if isinstance(command, Run):
            command(parse_overrides(unknown))
        elif unknown:
            raise UserError(f"unknown argument {unknown[0]}; see affinitynet --help")
        else:
            command()
    except UserError as error:
        print(f"affinitynet: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # who reads us, `head` say, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"affinitynet: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("affinitynet: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `--walk.beta 10 --cams.scales 0.5 1` into settings, each read as its field asks.

    Raises:
        UserError: a value without a flag, a flag without a value, or a value that can't be read.
    """
    from affinitynet.run_folder.recipe import read_flag

    found: dict[str, list[str]] = {}
    words: list[str] | None = None
    for argument in arguments:
        if argument.startswith("--"):
            key, equals, value = argument[2:].partition("=")
            words = found.setdefault(key.replace("-", "_"), [])
            if equals:
                words.append(value)
        elif words is None:
            raise UserError(f"unexpected argument {argument!r}; see affinitynet run --help")
        else:
            words.append(argument)
    for key, given in found.items():
        if not given:
            raise UserError(f"--{key} needs a value")
    return {key: read_flag(key, given) for key, given in found.items()}


def _conclude(run: Path) -> None:
    from affinitynet.pipeline import Run as OpenRun
    from affinitynet.report import print_figures, write_report

    opened = OpenRun.open(run)
    if opened.figures():
        print_figures(("background", *opened.manifest.classes), opened.figures())
    print(f"report: {write_report(run)}")
