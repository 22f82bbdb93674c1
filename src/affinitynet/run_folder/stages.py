"""The stage graph: what each stage makes, reads and depends on. The only place that knows it.

    Manifest -> classifier -> cams -> confident -> affinity -> scores -> pseudo
             -> segmenter -> masks

A stage is described by a function of the recipe, because sources change the graph: with CAMs from
files no classifier is trained, and `train_classifier` is not there at all.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from affinitynet.errors import UserError, did_you_mean
from affinitynet.run_folder.artifacts import (
    AFFINITIES,
    AFFINITY,
    BANKS,
    CAMS,
    CAMS_CLASSIFIER,
    CAMS_CONTRAST,
    CHOICE,
    CLASSIFIER,
    CONFIDENT,
    DESCRIPTION,
    EVALUATION,
    MADE_BY,
    MASKS,
    NAMES,
    PSEUDO,
    RANGES,
    SCORES,
    WALK,
    WEIGHTS,
    Artifact,
    Round,
)
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.rounds import leaves_out, round_before, rounds_of
from affinitynet.run_folder.setting_types import BY_CLASSIFIER, NETWORKS, is_imported
from affinitynet.run_folder.settings_base import OF_FEATURES, READ, WITHOUT_WALK


@dataclass(frozen=True)
class Stage:
    """One box of the graph, for one recipe.

    artifacts: the first holds the stage's records; of each image its file is written last.
    settings: sections of the recipe or single settings, with dots, that the files depend on.
    roles: of the splits (train, val, figures) whose images and tags it depends on; truth: whether
    it depends on their ground truth too; groups: on which images show the same thing; corrections:
    on masks that people drew. source: where it brings its files in from, "" where it makes them.
    borrows: files, by their place in a run
    folder, that it takes from the run whose networks are used. round: that it belongs to, if any.
    """

    name: str
    artifacts: tuple[Artifact, ...]
    reads: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("train",)
    truth: bool = False
    groups: bool = False
    corrections: bool = False
    source: str = ""
    borrows: tuple[str, ...] = ()
    round: Round | None = None

    @property
    def work(self) -> str:
        """The name of what it does, which stages of several rounds have in common."""
        return self.name.removesuffix(f"_{self.round.number}") if self.round else self.name

    @property
    def folder(self) -> str:
        """The folder that holds its records."""
        return self.artifacts[0].folder

    @property
    def suffix(self) -> str:
        """That of the file it makes for each image, "" where it makes one thing."""
        return self.artifacts[0].suffix

    @property
    def trains(self) -> bool:
        """Whether it trains a network."""
        return not self.source and self.work.startswith("train_")

    @property
    def borrowed(self) -> bool:
        """Tell whether it is a training whose network comes from another run."""
        return self.source.startswith(NETWORKS)


def _borrow(name: str, artifact: Artifact, recipe: Recipe) -> Stage:
    # The weights before their description, which says that they are there.
    files = tuple(f"{artifact.folder}/{file}" for file in (WEIGHTS, DESCRIPTION))
    source = f"{NETWORKS}{recipe.networks.run}"
    return Stage(name, (artifact,), (), ("networks.run",), (), source=source, borrows=files)


def _borrows(artifact: Artifact, file: str, recipe: Recipe) -> tuple[str, ...]:
    return (f"{artifact.folder}/{file}",) if recipe.networks.run else ()


def _train_classifier(recipe: Recipe) -> Stage:
    if recipe.networks.run:
        return _borrow("train_classifier", CLASSIFIER, recipe)
    settings = ("seed", "precision", "dataset.train", "backbone", "classifier")
    if not recipe.classifier.hold_out:
        return Stage("train_classifier", (CLASSIFIER,), settings=settings)
    # The tags of val judge it.
    return Stage(
        "train_classifier",
        (CLASSIFIER,),
        settings=(*settings, "dataset.val"),
        roles=("train", "val"),
        groups=True,
    )


def _compute_cams(recipe: Recipe) -> Stage:
    imported, by_text = is_imported(recipe.cams.source), recipe.cams.source == "text"
    # What else the section says is of no effect on maps from files.
    own = ("cams.source", "cams.classes", "cams.splits")
    # Images without a tag are chosen among those of train.
    measured = ("seed", "dataset.train", "contrast.quantile")
    by_quantile = recipe.cams.threshold == "quantile" and not imported
    made = CAMS_CLASSIFIER if recipe.cams.source == "auto" else CAMS
    borrows = _borrows(made, RANGES, recipe) if by_quantile else ()
    return Stage(
        "compute_cams",
        (made,),
        () if imported or by_text else ("train_classifier",),
        (
            *(("seed", "backbone") if by_text else ()),
            "dataset.val",
            "dataset.figures",
            *(own if imported else ("cams", "tile")),
            *(measured if by_quantile else ()),
            *(("networks.run",) if borrows else ()),
        ),
        (*recipe.cams.splits, "figures"),
        source=recipe.cams.source if imported else "",
        borrows=borrows,
    )


def _compute_contrast(recipe: Recipe) -> Stage:
    learnt = recipe.contrast.features == "classifier"
    roles = ("dataset.train", "dataset.val", "dataset.figures")
    own = ("seed", *roles, "cams.source", "cams.splits", "tile", "networks.run")
    made = CAMS_CONTRAST if recipe.cams.source == "auto" else CAMS
    return Stage(
        "compute_contrast",
        (made,),
        ("train_classifier",) if learnt else (),
        # The classifier's fingerprint holds its backbone already.
        (*own, "contrast") if learnt else (*own, "contrast", "backbone"),
        (*recipe.cams.splits, "figures"),
        borrows=_borrows(made, BANKS, recipe),
    )


def _choose_cams(recipe: Recipe) -> Stage:
    return Stage(
        "choose_cams",
        (CAMS,),
        ("train_classifier", "compute_cams", "compute_contrast"),
        ("seed", "dataset.val", "dataset.figures", "cams.source", "cams.splits", "networks.run"),
        (*recipe.cams.splits, "figures"),
        borrows=_borrows(CAMS, CHOICE, recipe),
    )


def _mine_confident(recipe: Recipe) -> Stage:
    source = recipe.confident.source
    imported = is_imported(source)
    return Stage(
        "mine_confident",
        (CONFIDENT,),
        (makes_cams(recipe),) if source == "cams" else (),
        ("confident.source", "cams.classes")
        if imported
        else ("confident", *READ, *_judged_by(recipe)),
        ("train", "figures"),
        truth=source == "truth",
        source=source if imported else "",
    )


def _seen_first(recipe: Recipe) -> tuple[str, ...]:
    # Where all before it comes from files, no stage but it has looked at the images.
    return READ if is_imported(recipe.cams.source) else ()


def _judged_by(recipe: Recipe) -> tuple[str, ...]:
    # Whether classes whose seeds are empty are left out; a classifier's own stage holds it.
    return () if trains_classifier(recipe) else ("classifier.hold_out",)


def _start(start: str, recipe: Recipe) -> tuple[str, ...]:
    # Without a classifier in the run a network starts from the backbone's weights.
    return ("train_classifier",) if start == "classifier" and trains_classifier(recipe) else ()


def _train_affinity(recipe: Recipe) -> Stage:
    if is_imported(recipe.affinity.source):
        return Stage(
            "train_affinity",
            (AFFINITIES,),
            settings=("affinity.source",),
            roles=("train", "figures"),
            source=recipe.affinity.source,
        )
    if recipe.networks.run:
        return _borrow("train_affinity", AFFINITY, recipe)
    reads = ("mine_confident", *_start(recipe.affinity.start, recipe))
    settings = ("seed", "precision", "backbone", "affinity")
    return Stage("train_affinity", (AFFINITY,), reads, settings)


def _propagate(recipe: Recipe) -> Stage:
    roles = ("train", "figures")
    source = recipe.pseudo.source
    if is_imported(source):
        return Stage(
            "propagate",
            (PSEUDO,),
            settings=("pseudo.source", "cams.classes"),
            roles=roles,
            source=source,
        )
    if recipe.affinity.source == "none":
        settings = (*WITHOUT_WALK, *_seen_first(recipe), *_judged_by(recipe))
        return Stage("propagate", (PSEUDO,), (makes_cams(recipe),), settings, roles)
    kept: tuple[Artifact, ...] = (SCORES,) if "scores" in recipe.walk.keep else ()
    # Those from files are there already, as the artifact of train_affinity.
    if "affinities" in recipe.walk.keep and not is_imported(recipe.affinity.source):
        kept = (*kept, AFFINITIES)
    frozen = recipe.affinity.source == "features"
    network = _start(recipe.affinity.start, recipe) if frozen else ("train_affinity",)
    own = ("walk", "tile", "pseudo.regions", "networks.failed")
    settings = (*own, *(OF_FEATURES if frozen else ()), *_seen_first(recipe), *_judged_by(recipe))
    reads = (makes_cams(recipe), *network)
    return Stage("propagate", (PSEUDO, WALK, *kept), reads, settings, roles)


def _train_segmenter(recipe: Recipe, this: Round) -> Stage:
    if recipe.networks.run:
        return _borrow("train_segmenter", this.segmenter, recipe)
    before = round_before(recipe, this)
    taught_by = before.stage("relabel") if before else "propagate"
    return Stage(
        this.stage("train_segmenter"),
        (this.segmenter, this.predictions),
        (taught_by, *_start(recipe.segmenter.start, recipe)),
        ("seed", "precision", "tile", "backbone", "segmenter"),
        corrections=True,
        round=this,
    )


def _relabel(recipe: Recipe, this: Round) -> Stage:
    # Not `rounds`: with another number of them these masks are made in the same way.
    settings = tuple(f"relabel.{key}" for key in ("enabled", "odds", "refine", "block", "crf"))
    settings = (*settings, "precision", "tile", "networks.failed", "networks.unlearnt")
    artifacts: tuple[Artifact, ...] = (this.masks, this.uncorrected)
    if this.certain and leaves_out(recipe):
        artifacts = (*artifacts, this.certain)
        settings = (*settings, "relabel.confidence", "relabel.agreement")
    # A segmenter of this run has learned from its pseudo masks, another run's has not.
    reads = (this.stage("train_segmenter"), *(("propagate",) if recipe.networks.run else ()))
    roles = ("train", "figures")
    return Stage(
        this.stage("relabel"),
        artifacts,
        reads,
        settings,
        roles,
        # In a run of its own they are ingredients of the training already.
        corrections=bool(recipe.networks.run),
        round=this,
    )


def _evaluate(recipe: Recipe) -> Stage:
    roles = ("figures" if recipe.dataset.figures else "train", "val")
    # What it reads is all that there is to measure: `stages_of` fills it in.
    return Stage("evaluate", (EVALUATION,), (), ("dataset", "evaluate"), roles, truth=True)


_STAGES: tuple[Callable[[Recipe], Stage], ...] = (
    _train_classifier,
    _compute_cams,
    _compute_contrast,
    _choose_cams,
    _mine_confident,
    _train_affinity,
    _propagate,
)


def trains_classifier(recipe: Recipe) -> bool:
    """Tell whether the run trains a classifier: if it needs CAMs, and those need a classifier."""
    source = recipe.cams.source
    by_contrast = source == "contrast" and recipe.contrast.features == "classifier"
    asked = source in (*BY_CLASSIFIER, "auto") or by_contrast
    return recipe.pseudo.source == "walk" and asked


def makes_cams(recipe: Recipe) -> str:
    """Name the stage that makes `cams`."""
    made = {"contrast": "compute_contrast", "auto": "choose_cams"}
    return made.get(recipe.cams.source, "compute_cams")


def stages_of(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages that a recipe needs, in order.

    A stage is needed if the final masks, or the segmentation network where none are asked for,
    depend on it, directly or not. With another run's networks the masks are what is asked for.
    """
    made = [make(recipe) for make in _STAGES]
    for each in rounds_of(recipe):
        made += [_train_segmenter(recipe, each), _relabel(recipe, each)]
    described = {stage.name: stage for stage in made}
    last = _evaluate(recipe)
    last_of = "propagate" if recipe.networks.run else "train_segmenter"
    needed = {"relabel" if recipe.relabel.enabled else last_of}
    # From the end: all that read a stage come behind it, so one pass finds every need.
    for stage in reversed(described.values()):
        if stage.name in needed:
            needed.update(stage.reads)
    stages = tuple(stage for stage in described.values() if stage.name in needed)
    # All that has a row of figures; nothing else changes what is measured.
    measured = tuple(s.name for s in stages if any(artifact.row for artifact in s.artifacts))
    return (*stages, Stage(**{**vars(last), "reads": measured}))


def final_masks(recipe: Recipe) -> Artifact:
    """Return the masks of the tagged images that a run ends with."""
    return MASKS if recipe.relabel.enabled else PSEUDO


def find_stage(name: str, stages: Sequence[Stage]) -> Stage:
    """Return the stage of that name.

    Raises:
        UserError: there is none, or this recipe's sources make it unnecessary.
    """
    for stage in stages:
        if stage.name == name:
            return stage
    # All that reads them calls CAMs by this name; contrast makes them in a stage of its own.
    if name == "compute_cams" and any(stage.folder == CAMS.folder for stage in stages):
        return next(stage for stage in stages if stage.folder == CAMS.folder)
    if name in NAMES:
        sources = " and ".join(dict.fromkeys(s.source for s in stages if s.source))
        why = (
            f"what it makes comes from {sources}"
            if sources
            else "nothing in it needs what it makes"
        )
        raise UserError(
            f"this run has no stage {name}: {why}; choose from "
            f"{', '.join(stage.name for stage in stages)}"
        )
    known = (*(stage.name for stage in stages), *(n for n in NAMES if not n[-1].isdigit()))
    hint = did_you_mean(name, known, cutoff=0.5)
    hint = f"{hint} There are" if hint else "choose from"
    listed = (n for n in NAMES if n in known)
    raise UserError(f"{name!r} is no stage: {hint} {', '.join(listed)}")


def with_all_behind(first: Stage, stages: Iterable[Stage]) -> tuple[Stage, ...]:
    """Return a stage and all that read it, directly or not, in order."""
    found = [first]
    # `stages` are in order, so one pass finds indirect readers too.
    for stage in stages:
        if any(earlier.name in stage.reads for earlier in found):
            found.append(stage)
    return tuple(found)


def folders_of(stage: Stage, stages: Iterable[Stage]) -> tuple[str, ...]:
    """Return the folders to delete before a stage is made again, that of its records first.

    Those that only another form of the recipe would have it fill belong to them too, unless they
    are another stage's now.
    """
    others = {a.folder for other in stages if other.name != stage.name for a in other.artifacts}
    possible = (artifact.folder for artifact, name in MADE_BY if name == stage.name)
    folders = dict.fromkeys((*(a.folder for a in stage.artifacts), *possible))
    return tuple(folder for folder in folders if folder not in others)


def provenance(recipe: Recipe, stages: Iterable[Stage]) -> str:
    """Say which parts of a run come from outside, "" where nothing does."""
    parts = [
        f"{stage.artifacts[0].folder} from {stage.source}"
        for stage in stages
        if stage.source and not stage.borrowed
    ]
    if recipe.networks.run:
        parts.append(f"networks from {recipe.networks.run}")
    learnt = recipe.affinity.source in ("learnt", "boundary")  # from the confident areas
    if recipe.confident.source == "truth" and learnt:
        parts.append("confident from the ground truth, an upper bound")
    return ", ".join(parts)
