"""`affinitynet tune`: the settings of the walk, chosen again from what a run keeps."""

from pathlib import Path

from affinitynet.command_line.parser import JSON, RUN, argument, print_json, switch

TUNE = (
    RUN,
    argument("--masks", "folder of 10 to 50 hand-drawn masks (PNG by image name): they choose"),
    argument("--images", "images to look at without masks (default: 40)", int, default=40),
    argument("--measure", "what chooses without masks (default: nothing, as none is safe)", str),
    switch("--apply", "write what was chosen into the run's recipe"),
    JSON,
)


def tune(
    run: Path, masks: Path | None, images: int, measure: str | None, apply: bool, json: bool
) -> None:
    """Choose the walk's settings again from what a run keeps.

    In minutes, without a network. With hand-drawn masks the choice is validated on those left out;
    every later figure says that truth chose it. Without, nothing is chosen unless --measure names
    what does. A curve for each setting is in RUN/tune/.
    """
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.pipeline import Run
    from affinitynet.run_folder.flags import show_settings, show_value
    from affinitynet.tuning.choose import Validation
    from affinitynet.tuning.tune import say_validation, tune_run

    Run.open(run)  # for its message where there is no run
    found = tune_run(run, masks, images=images, measure=measure, apply=apply)
    if json:
        print_json(found)
        return
    width = max(map(len, found["now"]))
    for name, now in found["now"].items():
        chosen = found["chosen"].get(name, now)
        change = "" if chosen == now else f"  ->  {show_value(chosen)}"
        print(f"{name:{width}}  {show_value(now)}{change}")
    print(f"by {found['by']} on {found['images']} images: {found['gain']:+.3f}")
    if found["validation"]:
        print(say_validation(Validation(**found["validation"])))
    if found["unproven"]:
        said = show_settings(found["unproven"])
        print(f"nothing is chosen: {said} gained on all masks, but nothing on those left out")
    print(f"curves: {run / 'tune'}")
    if found["chosen"]:
        step = "" if apply else "write it into the recipe with --apply; then "
        print(f"next: {step}affinitynet run {run / 'recipe.yaml'} --redo propagate")
