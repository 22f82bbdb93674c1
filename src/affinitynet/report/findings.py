"""What a data set holds and what is wrong with it, for the terminal (`affinitynet check`)."""

from rich.table import Table
from rich.text import Text

from affinitynet.data.check import CheckReport
from affinitynet.progress import make_console

SHOWN = 20  # problems; a folder of a wrong kind has one for each image


def print_findings(findings: CheckReport) -> None:
    """Print layout, counts by split and class, image sizes, warnings; then ready, or what to fix.

    Of what there is to fix, the first 20 are printed.
    """
    console = make_console()
    if findings.layout:
        why = f" ({findings.found})" if findings.found else ""
        console.print(Text(f"layout: {findings.layout}{why}\n"), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("images", overflow="fold")
    for split in findings.splits:
        table.add_column(Text(split), justify="right")
    rows = {
        "in all": findings.splits,
        "with ground truth": findings.with_truth,
        "without a tag": findings.untagged,
    }
    for name, counts in rows.items():
        table.add_row(name, *(f"{counts[split]:,}" for split in findings.splits))
    table.add_section()
    for index, name in enumerate(findings.classes):
        counts = {split: found[index] for split, found in findings.class_counts.items()}
        table.add_row(Text(name), *(f"{counts[split]:,}" for split in findings.splits))
    console.print(table)
    if findings.width and findings.height:
        (least, usual, most), (low, middle, high) = findings.width, findings.height
        console.print(
            f"\n{findings.images:,} different images, {least} to {most} pixels wide "
            f"(median {usual:g}), {low} to {high} high (median {middle:g})"
        )
    # Text, as names may hold brackets that rich would read as markup.
    for warning in findings.warnings:
        console.print(Text(f"\nwarning: {warning}"), soft_wrap=True)
    if not findings.problems:
        console.print("\nready")
        return
    count = len(findings.problems)
    console.print(f"\n{count:,} problem{'s' * (count > 1)} to fix:")
    for number, problem in enumerate(findings.to_fix[:SHOWN], 1):
        console.print(Text(f"{number:3}. {problem}"), soft_wrap=True)
    if count > SHOWN:
        console.print(f"and {count - SHOWN:,} problems more")
