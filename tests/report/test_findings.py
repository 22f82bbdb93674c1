"""`check` prints counts, sizes, warnings and problems, and never floods the terminal."""

from dataclasses import replace

from affinitynet.data.check import Problem, check_dataset
from affinitynet.report.findings import print_findings


def lines(capsys):
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_counts_sizes_and_warnings(builder, capsys):
    findings = check_dataset(builder.manifest(train=8, val=3))
    print_findings(findings)
    said = lines(capsys)
    assert said[:4] == [
        "images train val",
        "in all 8 3",
        "with ground truth 8 3",
        "without a tag 0 0",
    ]
    assert {"cat 3 1", "dog <b> 3 1", "fish 2 1"} <= set(said)
    assert (
        "11 different images, 36 to 36 pixels wide (median 36), 24 to 24 high (median 24)" in said
    )
    assert findings.warnings
    assert all(f"warning: {warning}" in said for warning in findings.warnings)
    assert said[-1] == "ready"


def test_problems_are_named_and_cut_off(builder, capsys):
    manifest = builder.manifest()
    manifest.samples[0].image.write_bytes(b"no image")
    findings = check_dataset(manifest)
    print_findings(findings)
    said = lines(capsys)
    assert "1 problem to fix:" in said
    assert any(line.startswith("1. train_00: ") for line in said)
    assert "ready" not in said
    many = tuple(Problem(str(i), "[bold]odd[/bold]") for i in range(1025))
    print_findings(replace(findings, problems=many))
    said = lines(capsys)
    assert "1,025 problems to fix:" in said
    assert sum("[bold]odd[/bold]" in line for line in said) == 20
    assert "4. 3: [bold]odd[/bold]" in said
    assert said[-1] == "and 1,005 problems more"
