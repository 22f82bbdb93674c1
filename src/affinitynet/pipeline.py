"""A run: binds each stage's name to its work, and goes through the stages.

Loads no torch until a stage has work to do: what only looks at a run answers at once.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from affinitynet.data import Manifest, contents
from affinitynet.data.facts import facts_of
from affinitynet.data.lookup import Lookup
from affinitynet.data.manifest import check_run_folder
from affinitynet.data.of_run import manifest_of, read_recipe_data
from affinitynet.data.readings import check_depths, settle_reading
from affinitynet.data.roles import count_files
from affinitynet.data.trust import rank_masks, read_trust
from affinitynet.data.verified import verified
from affinitynet.engine.place import here
from affinitynet.engine.shards import check_idle, forget_locks
from affinitynet.errors import UserError
from affinitynet.helping import check_together, help_through
from affinitynet.memory import kept_memory
from affinitynet.preflight import (
    check_classes,
    check_contents,
    check_corrected,
    check_fresh,
    check_function,
    check_judged,
    check_networks,
    check_place,
    check_roles,
    check_sources,
    check_tools,
    check_truth,
    note_start,
)
from affinitynet.progress import say, warn
from affinitynet.report.figures import figure_rows
from affinitynet.report.notebook import show_run
from affinitynet.run_folder.artifacts import CLEANED
from affinitynet.run_folder.choices import NO_FACTS, Choice, settle, write_choices
from affinitynet.run_folder.flags import show_value
from affinitynet.run_folder.folder import (
    RECIPE,
    BusyError,
    atomic_write,
    locked,
    remove_leftovers,
)
from affinitynet.run_folder.freshness import Freshness, StageStatus, unfinished
from affinitynet.run_folder.history import read_histories
from affinitynet.run_folder.origin import ORIGIN, write_origin
from affinitynet.run_folder.recipe import Recipe
from affinitynet.run_folder.records import Plan, Record
from affinitynet.run_folder.replacing import forget_stage, set_aside, set_stages_aside
from affinitynet.run_folder.setting_types import FUNCTION
from affinitynet.run_folder.stages import Stage, find_stage, folders_of, stages_of, with_all_behind
from affinitynet.run_folder.tables import Table, table_of
from affinitynet.run_folder.versions import versions
from affinitynet.stages.works import work_of

if TYPE_CHECKING:
    from affinitynet.stages.context import CamFunction, Context


class Run:
    """A run folder: what is in it, and how to go on with it."""

    def __init__(
        self,
        recipe: Recipe,
        manifest: Manifest | None = None,
        cams: "CamFunction | None" = None,
    ) -> None:
        """Tie a recipe and a data set to the recipe's run folder.

        Without `manifest` that of the run folder is read when it is first asked for.
        """
        self.recipe, self.stages = recipe, stages_of(recipe)
        self._manifest, self._cams = manifest, cams
        self.chosen: dict[str, Choice] = {}
        self.leads = True  # of several processes on the run folder

    @property
    def manifest(self) -> Manifest:
        """The data set."""
        if self._manifest is None:
            self._manifest = manifest_of(self.recipe.out)
        return self._manifest

    @classmethod
    def create(cls, recipe: Recipe, cams: "CamFunction | None" = None) -> Self:
        """Read the recipe's data set.

        Raises:
            UserError: no data set given, or it can't be read.
        """
        if recipe.data is None:
            raise UserError("data: the recipe names no data set; give its folder with --data")
        recipe, manifest = settle_reading(recipe, read_recipe_data(recipe))
        recipe, chosen = settle(recipe, facts_of(recipe, manifest) if recipe.choose else NO_FACTS)
        for key, choice in chosen.items():
            say(f"chosen: {key} = {show_value(choice.value)} ({choice.reason})")
        run = cls(recipe, manifest, cams)
        run.chosen = chosen
        return run

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Open a run folder as it was left.

        Raises:
            UserError: the folder holds no run, or one of version 0.1.
        """
        folder = Path(folder)
        check_run_folder(folder)
        return cls(Recipe.load(folder / RECIPE, out=folder))

    @property
    def context(self) -> "Context":
        """The run as its stages see it."""
        from affinitynet.stages.context import Context

        return Context(self.recipe, self.manifest, self.recipe.out, self._cams, self.leads)

    def status(self, *, verify: bool = False) -> list[StageStatus]:
        """Return each stage's state: done, partial, stale, imported or to do.

        Answers from the run folder's records. `verify` looks at the data set, the weights and
        every image's file, too.
        """
        if not verify:
            return Freshness(self.recipe).states(self._count)
        freshness = Freshness(self.recipe, Lookup(self.recipe, read_recipe_data(self.recipe)))
        return [verified(freshness, self.manifest, stage) for stage in self.stages]

    @property
    def trust(self) -> Table:
        """The masks' trust as a table, the least trusted first: image, trust and its parts."""
        return read_trust(self.recipe)

    @property
    def history(self) -> dict[str, Table]:
        """The learning curves: for each training step, epoch, losses and learning rate."""
        return read_histories(self.recipe.out)

    def _repr_html_(self) -> str:
        """Return the run's stages, figures and least trusted masks for a notebook."""
        return show_run(self.recipe, self.status())

    def metrics(self, stage: str | None = None) -> dict[str, Any]:
        """Return the evaluation as a table (a dict of lists), or what a finished stage recorded.

        With `stage` what it recorded, and under `evaluation` its own rows, each a dict.

        Raises:
            UserError: no such stage, or it is not finished.
        """
        if stage is None:
            return table_of(self.figures())
        found = find_stage(stage, self.stages)
        record = Freshness(self.recipe).folder(found).record()
        if record is None:
            raise UserError(f"{self.recipe.out}: stage {stage} is not finished")
        own = {artifact.row for artifact in found.artifacts} - {""}
        rows = [row for row in self.figures() if row["stage"] in own]
        return {**record.figures, "evaluation": rows}

    def figures(self) -> list[dict[str, Any]]:
        """Return the rows of `evaluation/figures.json`, none before `evaluate` has run.

        Raises:
            UserError: the file is damaged.
        """
        return figure_rows(self.recipe.out)

    def go(self, until: str | None = None, redo: str | None = None, anyway: bool = False) -> None:
        """Do what is to do, in order, up to and with the stage `until`.

        `redo` names a stage whose files, and those of all stages behind it, are made anew when all
        that can be checked beforehand was found in order. The old ones wait in `.NAME.discarded`
        until the new ones are complete. `anyway` goes on where the classifier has learned no class.

        Of several processes (`engine.place.here`) one leads; the others help, and return when all
        is done. `leads` says afterwards which this one was.

        Raises:
            UserError: a stale stage is in the way, a stage met a mistake of the user's, or the
                classifier has learned no class.
            Stopped: SIGTERM came; what is done stays.
        """
        stages = self.stages
        if until:
            stages = stages[: stages.index(find_stage(until, stages)) + 1]
        redone = with_all_behind(find_stage(redo, self.stages), self.stages) if redo else ()
        check_together(self.recipe, redo)
        check_place(self.recipe, self.manifest)
        check_roles(self.recipe, self.manifest)
        while True:
            self.leads = not here().follows
            try:
                if self.leads:
                    self._lead(stages, redo, redone, anyway)
                    return
            except BusyError:
                if here().count == 1 or here().linked:
                    raise
            self.leads = False
            if help_through(self.context, self._look_up(), stages, work_of, anyway=anyway):
                return

    def _lead(
        self, stages: Sequence[Stage], redo: str | None, redone: Sequence[Stage], anyway: bool
    ) -> None:
        """Check all that can be checked beforehand, and do what is to do."""
        with locked(self.recipe.out):
            remove_leftovers(self.recipe.out, CLEANED)
            freshness = (look := self._look_up())()
            kept = [stage for stage in self.stages if stage not in redone]
            states = [freshness.status(stage, self._count) for stage in kept]
            done = {status.name for status in states if status.finished}
            todo = [stage for stage in stages if stage.name not in done]
            names = {stage.work for stage in todo if not stage.borrowed}
            check_networks(self.recipe, self.manifest)
            check_sources(self.recipe, todo)
            check_function(self.recipe, todo, self._cams)
            check_tools(self.recipe, self.manifest, names)
            check_fresh(self.recipe, stages, states)
            # Of stages behind `until` as well: what is recorded of an image is its state of now.
            check_contents(self.recipe, self.manifest, kept, states)
            if todo:
                check_depths(self.recipe, self.manifest)
            check_classes(self.manifest, names)
            check_truth(self.recipe, self.manifest, names)
            check_corrected(self.recipe, self.manifest, names)
            note_start(self.recipe, names)
            anew = redo if redo == "evaluate" else None  # one file, which is replaced at once
            replaced = [stage for stage in redone if stage.name != anew]
            if replaced:
                check_idle(self.recipe.out)
            set_stages_aside(self.recipe.out, replaced, self.stages)
            if replaced:  # nobody may have begun in between, by the old plan
                check_idle(self.recipe.out)
            self._write_inputs()
            if todo or not (self.recipe.out / ORIGIN).is_file():
                write_origin(self.recipe, self.manifest.fingerprint(), here().count)
            contents.record_images(self.recipe, self.manifest)
            for number, stage in enumerate(stages, 1):
                if stage.corrections:  # people may have drawn some while earlier stages worked
                    freshness = look()
                    check_fresh(self.recipe, [stage], [freshness.status(stage, self._count)])
                title = f"[{number}/{len(self.stages)}] {stage.name}"
                self._do(stage, freshness, title, anew=stage.name == anew)
                if number < len(stages) and not anyway:
                    check_judged(self.recipe, stage.name)
            remove_leftovers(self.recipe.out, CLEANED)  # of helpers that were ended meanwhile

    def evaluate(self) -> list[dict[str, Any]]:
        """Measure the masks there are; nothing is trained, and no other stage's file is touched.

        The figures of a finished run replace those in its folder. Those of an unfinished one are
        returned only, because they would look like the finished run's.
        """
        *before, stage = self.stages
        with locked(self.recipe.out):
            remove_leftovers(self.recipe.out, CLEANED)
            freshness = self._look_up()()
            states = [freshness.status(earlier, self._count) for earlier in before]
            check_contents(self.recipe, self.manifest, before, states)
            if all(state.finished for state in states):
                check_truth(self.recipe, self.manifest, {stage.name})
                self._do(stage, freshness, stage.name, anew=True)
                return self.figures()
            say(f"not finished, so these figures are shown but not kept: {unfinished(states)}")
            from affinitynet.stages.evaluate import measure

            rows, warnings = measure(self.context)
            _warn(warnings)
            return rows

    def _look_up(self) -> Callable[[], Freshness]:
        """Return what says how fresh the stages are; all but corrections is looked up once."""
        return partial(Freshness, self.recipe, Lookup(self.recipe, self.manifest))

    def _count(self, stage: Stage) -> tuple[int, int]:
        return count_files(self.recipe, self.manifest, stage)

    def _do(self, stage: Stage, freshness: Freshness, title: str, *, anew: bool = False) -> None:
        """Do what is left of a stage; `anew` replaces the one file of a finished one."""
        folder = freshness.folder(stage)
        if not anew and freshness.status(stage, self._count).finished:
            folder.tidy()
            forget_stage(self.recipe.out, stage, self.stages)
            rank_masks(self.recipe, self.manifest, stage, missing=True)
            say(f"{title}: {_done(stage)} before")
            return
        say(f"{title} ...")
        plan = freshness.plan(stage)
        if not anew:
            self._start(stage, freshness, plan)
        began = time.monotonic()
        with kept_memory():
            figures = work_of(stage)(self.context)
        seconds = round(time.monotonic() - began, 1)
        record = Record(
            stage=stage.name,
            fingerprint=plan.fingerprint,
            settings=plan.settings,
            counts=figures.pop("counts", {}),
            figures=figures,
            seconds=seconds,
            versions=versions(),
        )
        if anew:  # not before: until the new file is there, the old plan speaks of the old one
            folder.start(plan)
        contents.record_files(self.recipe, self.manifest, stage)
        rank_masks(self.recipe, self.manifest, stage)
        # The record last: it is what says that the stage is done.
        folder.finish(record)
        forget_locks(self.recipe.out)
        forget_stage(self.recipe.out, stage, self.stages)
        say(f"{title}: {_done(stage)} in {seconds:.0f} s")
        _warn(figures.get("warnings", []))

    def _start(self, stage: Stage, freshness: Freshness, plan: Plan) -> None:
        folder = freshness.folder(stage)
        found = folder.plan()
        if found is None or found.fingerprint != plan.fingerprint:
            # Of a stage whose own folder someone deleted.
            for beside in folders_of(stage, self.stages)[1:]:
                set_aside(self.recipe.out / beside)
            folder.start(plan)

    def _write_inputs(self) -> None:
        # Before the recipe, by which a run knows that nothing is to be chosen any more.
        if self.chosen:
            write_choices(self.recipe.out, self.chosen)
        with atomic_write(self.recipe.out / RECIPE) as temporary:
            temporary.write_text(self.recipe.dump(), encoding="utf-8")
        self.manifest.write(self.recipe.out)


def _done(stage: Stage) -> str:
    return "imported" if stage.source else "done"


def run(
    recipe: Recipe,
    *,
    until: str | None = None,
    redo: str | None = None,
    anyway: bool = False,
    cams: "CamFunction | None" = None,
    cams_version: str = "",
) -> Run:
    """Run a recipe, or go on with it where its run folder left off.

    anyway: go on where held-out images say that the classifier has learned no class.
    cams: a source of class activation maps of your own: given an image (H, W, 3) uint8 and the
        names of its K tags it returns K maps (K, H, W), from 0 to 1, in that order. No
        classifier is trained. Its name and `cams_version` stand in the fingerprint: give another
        version when it gives other maps, else those of before are kept.

    Raises:
        UserError: what is wrong with recipe, data or run folder, and what to do.
    """
    if cams is not None:
        name = f"{getattr(cams, '__module__', '')}.{getattr(cams, '__qualname__', repr(cams))}"
        source = f"{FUNCTION}{name} {cams_version}".strip()
        settings = recipe.cams.model_copy(update={"source": source})
        recipe = recipe.model_copy(update={"cams": settings})
    running = Run.create(recipe, cams)
    running.go(until, redo, anyway)
    return running


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        warn(warning)
