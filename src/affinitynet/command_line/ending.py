"""What `run` and `apply` say at their end: figures, and where masks and report are."""

from pathlib import Path


def say_results(out: Path) -> None:
    """Print a run's figures, where there was ground truth, its masks' folder and its report."""
    from affinitynet.pipeline import Run
    from affinitynet.report import print_figures, write_report
    from affinitynet.run_folder.stages import final_masks

    opened = Run.open(out)
    if rows := opened.figures():
        print_figures(("background", *opened.manifest.classes), rows)
    masks = out / final_masks(opened.recipe).folder
    if masks.is_dir():  # not after --until an earlier stage
        print(f"masks: {masks}")
    print(f"report: {write_report(out)}")
