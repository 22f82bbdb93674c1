"""Types of settings that need more than a bound: ranges, sweeps, roles, sources, devices."""

import re
from typing import Annotated

from pydantic import AfterValidator

from affinitynet.run_folder.urls import is_url

MOST_THRESHOLDS = 1000  # of a sweep: three counts a class each


def ascending(pair: tuple[float, float]) -> tuple[float, float]:
    """Refuse a range whose ends are the wrong way round."""
    if pair[0] > pair[1]:
        raise ValueError("a range is given as its lower end, then its upper end")
    return pair


def countable(sweep: tuple[float, float, float]) -> tuple[float, float, float]:
    """Refuse a sweep that never ends, or whose steps are more than can be counted."""
    start, stop, step = sweep
    if start > stop or step <= 0:
        raise ValueError("give start, stop and step: start at most stop, the step above 0")
    if (stop - start) / step > MOST_THRESHOLDS:
        raise ValueError(f"more than {MOST_THRESHOLDS} steps: take a larger step")
    return sweep


def with_train(roles: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse roles without train."""
    if "train" not in roles:
        raise ValueError("train must be among them: all later stages need its CAMs")
    return roles


FILES = "files:"  # begins a source that is a folder of files
NETWORKS = "run:"  # begins the source of a stage whose network is another run's
FUNCTION = "function:"  # begins a source that is a Python function; `an.run` writes it
BY_CLASSIFIER = ("classifier", "attention")  # sources of CAMs that ask the classifier alone


def is_imported(source: str) -> bool:
    """Tell whether a source brings in what was made outside this run."""
    return source.startswith((FILES, FUNCTION))


def source_of(*known: str, function: bool = False) -> AfterValidator:
    """Accept the sources of these names, `files:FOLDER`, and where asked `function:NAME`."""

    def check(source: str) -> str:
        by_name = source in known or (function and source.startswith(FUNCTION))
        # removeprefix gives back a source without the prefix, "" one without a folder.
        if by_name or source.removeprefix(FILES) not in ("", source):
            return source
        raise ValueError(f"a source is {', '.join(known)} or files:FOLDER")

    return AfterValidator(check)


def _url(text: str) -> str:
    if not is_url(text):
        raise ValueError("a URL is written as s3://bucket/folder")
    return text.rstrip("/")


def _store(name: str) -> str:
    if name not in ("files", "tar") and not is_url(name):
        raise ValueError("a store is files, tar or a URL (s3://bucket/folder)")
    return name.rstrip("/")


Url = Annotated[str, AfterValidator(_url)]
Store = Annotated[str, AfterValidator(_store)]


def _device(name: str) -> str:
    # By its form only: to ask for the device itself would load torch.
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise ValueError("a device is auto, cpu, mps, cuda or cuda:N (cuda:1 is the second card)")
    return name


Device = Annotated[str, AfterValidator(_device)]
