"""`affinitynet status`: what to look at first, then how far each stage is."""

from pathlib import Path

from affinitynet.command_line.parser import JSON, RUN, print_json, switch

STATUS = (RUN, switch("--verify", "look at every file, not only at the records"), JSON)


def status(run: Path, verify: bool, json: bool) -> None:
    """Print what to look at first, and how far each stage is."""
    # Here, so that `affinitynet --help` does not wait for what only this command needs.
    from affinitynet.data.judgements import class_lines, class_table, read_judgements
    from affinitynet.data.trust import least_trusted
    from affinitynet.pipeline import Run

    opened = Run.open(run)
    stages = opened.status(verify=verify)
    classes, judgements = class_table(run), read_judgements(run, opened.stages)
    trust = opened.trust
    if json:
        fields = ("name", "state", "detail", "seconds")
        rows = [{field: getattr(stage, field) for field in fields} for stage in stages]
        said = [{"stage": name, "judgement": text} for name, text in judgements]
        found = {"run": run, "stages": rows, "classes": classes, "judgements": said}
        print_json({**found, "trust": trust})
        return
    first = [*least_trusted(trust), *(f"{name}: {text}" for name, text in judgements)]
    if first:
        print("look at first:", *(f"  {text}" for text in first), "", sep="\n")
    for stage in stages:
        seconds = f"  {stage.seconds:8.0f} s" if stage.seconds else ""
        print(f"{stage.name:18} {stage}{seconds}")
        if stage.name == "train_classifier" and any(row["ap"] is not None for row in classes):
            print(*(f"  {line}" for line in class_lines(classes)), sep="\n")
