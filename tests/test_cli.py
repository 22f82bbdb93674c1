"""The command line: one line for a mistake, exit code 2, and no torch where none is needed."""

import contextlib
import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

import affinitynet
from affinitynet.cli import COMMANDS, main


def call(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command as a user types it, in a process of its own."""
    command = [sys.executable, "-m", "affinitynet", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment
    )


def fails(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line a command fails with."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("affinitynet: ")
    return said[0].removeprefix("affinitynet: ")


def document(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Any:
    """The one JSON document that a command prints."""
    main([*map(str, arguments), "--json"])
    return json.loads(capsys.readouterr().out)


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What --help or --version prints."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert not caught.value.code
    return capsys.readouterr().out


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, toy: Path, tiny_text: str) -> Path:
    """A run of all stages, made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    recipe = folder / "tiny.yaml"
    recipe.write_text(tiny_text, encoding="utf-8")
    out = folder / "run"
    words = ("run", "--walk.steps", "5", recipe, "--data", toy, "--out", out)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        main([*map(str, words)])
    assert "pseudo" in said.getvalue()
    assert (out / "report" / "index.html").is_file()
    return out


def test_run_help_lists_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from affinitynet.run_folder.flags import list_settings
    from affinitynet.run_folder.recipe import Recipe

    said = shown(capsys, "run", "--help")
    for setting in list_settings(Recipe(), Recipe()):
        assert f"--{setting.name} " in said
    assert "element-wise (Hadamard) power of the affinities (default: 8)" in " ".join(said.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_help(capsys: pytest.CaptureFixture[str], name: str) -> None:
    summary = COMMANDS[name].summary
    overview = shown(capsys, "--help")
    assert summary in overview
    assert max(map(len, overview.splitlines())) <= 80
    said = shown(capsys, name, "--help")
    assert summary in said
    for argument in COMMANDS[name].arguments:
        assert argument.name in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    python = ".".join(map(str, sys.version_info[:3]))
    said = shown(capsys, "--version")
    assert said.startswith(f"affinitynet {affinitynet.__version__}, Python {python}, torch ")


def test_mistakes_are_one_line_each(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_recipe: Path, toy: Path
) -> None:
    assert "none of the package's own" in fails(capsys, "run", "demmo")
    assert "--data" in fails(capsys, "run", tiny_recipe)
    assert "is no stage" in fails(
        capsys, "run", tiny_recipe, "--data", toy, "--out", tmp_path / "r", "--until", "walk"
    )
    assert "no such data set folder" in fails(
        capsys, "run", tiny_recipe, "--data", tmp_path / "none"
    )
    (tmp_path / "empty").mkdir()
    assert "is empty" in fails(capsys, "run", tiny_recipe, "--data", tmp_path / "empty")
    assert "is no run folder" in fails(capsys, "status", tmp_path)
    assert "holds no trained model" in fails(capsys, "predict", tmp_path, toy, "--out", tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "no command given; see affinitynet --help"),
        ("chekc data", "no command 'chekc': did you mean check?"),
        ("xyz", "no command 'xyz': choose from demo, check, run, apply, settings"),
        ("--quite check data", "unknown flag --quite: did you mean --quiet?"),
        ("check", "the following arguments are required: data; see affinitynet check --help"),
        ("check a b", "unexpected argument 'b'; see affinitynet check --help"),
        ("check a --format vco", "--format: no choice 'vco': did you mean voc?"),
        ("check a --format 7", "--format: no choice '7': choose from auto, voc, table"),
        ("check a --format", "--format: expected one argument; see affinitynet check --help"),
        ("predict a b --ot c", "unknown flag --ot: did you mean --out?"),
        ("status a --walk.beta 3", "unknown flag --walk.beta; see affinitynet status --help"),
        ("report a --samples many", "--samples: invalid int value: 'many'; see affinitynet report"),
        ("run demo stray", "unexpected argument 'stray'; see affinitynet run --help"),
        ("run demo --walk.bta 3", "unknown setting --walk.bta: did you mean walk.beta?"),
        ("run demo --verbos", "unknown setting --verbos: did you mean verbose?"),
        ("run demo --walk.scores true", "give its folder with --data"),  # a flag of version 0.1
        ("run --walk.beta", "--walk.beta needs a value"),
        ("run demo --walk.beta -1", "walk.beta = -1: Input should be greater than 0"),
        ("settings demmo", "none of the package's own"),
        (
            "check ''",
            "data: is empty; give a path (. is the working folder); see affinitynet check",
        ),
        ("run demo --out ''", "--out: is empty; give a path (. is the working folder)"),
    ],
)
def test_mistyped_words_get_the_nearest(
    capsys: pytest.CaptureFixture[str], words: str, said: str
) -> None:
    assert said in fails(capsys, *shlex.split(words))


def test_settings_of_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings"])
    lines = capsys.readouterr().out.splitlines()
    assert not any(line.startswith("*") for line in lines)
    assert any(line.split()[:2] == ["classifier.crop", "448"] for line in lines)
    main(["settings", "voc12_animals_mobilenetv2"])
    lines = capsys.readouterr().out.splitlines()
    changed = next(line for line in lines if " classifier.crop " in line)
    assert changed.split()[:3] == ["*", "classifier.crop", "320"]
    assert changed.endswith("(default: 448)")
    assert any(line.startswith("  walk.beta ") for line in lines)


def test_settings_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "settings", "voc12_animals_mobilenetv2")
    assert found["recipe"] == "voc12_animals_mobilenetv2"
    crop = next(row for row in found["settings"] if row["name"] == "classifier.crop")
    assert (crop["value"], crop["default"], crop["changed"]) == (320, 448, True)
    scales = next(row for row in found["settings"] if row["name"] == "cams.scales")
    assert scales["value"] == [0.5, 1.0, 1.5]
    assert scales["kind"] == "number ..."


def test_check_names_problems(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    (tmp_path / "labels.csv").write_text("image,labels\nimages/a.png,cat\n")
    assert fails(capsys, "check", tmp_path).endswith("1 problem; see the list above")
    with pytest.raises(SystemExit) as caught:
        main(["check", str(tmp_path), "--json"])
    assert caught.value.code == 2
    found = json.loads(capsys.readouterr().out)
    assert "a" in [problem["id"] for problem in found["problems"]]  # and all images have the tag
    assert found["classes"] == ["cat"]


def test_commands_on_a_finished_run(
    ran: Path, tmp_path: Path, toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """status, evaluate, report, export, check and predict, one after the other."""

    def prints(*words: str | Path) -> str:
        main([str(word) for word in words])
        return capsys.readouterr().out

    assert prints("status", ran).count("done") == 7
    again = fails(capsys, "run", ran.parent / "tiny.yaml", "--data", toy, "--out", ran)
    assert again.endswith("or choose another --out")
    assert "walk" in prints("evaluate", ran, "--masks", ran / "walk", "--split", "train")
    assert "goes with --masks" in fails(capsys, "evaluate", ran, "--split", "val")
    assert "no such folder" in fails(capsys, "evaluate", ran, "--masks", tmp_path / "none")
    assert prints("report", ran).strip() == str(ran / "report" / "index.html")
    prints("export", ran, "--out", tmp_path / "voc")
    assert "9 different images" in prints("check", tmp_path / "voc")
    prints("predict", ran, toy / "images", "--out", tmp_path / "masks")
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 12


def test_sigterm_ends_the_calling_program_as_before(ran: Path) -> None:
    assert (ran / "recipe.yaml").is_file()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_documents_of_a_finished_run(ran: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, "status", ran, "--verify")
    assert found["run"] == str(ran)
    assert [stage["state"] for stage in found["stages"]] == ["done"] * 7
    assert all(stage["seconds"] >= 0 for stage in found["stages"])
    measured = document(capsys, "evaluate", ran)
    assert measured["classes"][0] == "background"
    assert {"stage", "split", "miou"} <= set(measured["rows"][0])


def test_status_says_what_the_stages_say_of_themselves(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(ran, run)
    row = {"class": "striped", "images": 60, "positives": 12, "ap": 0.456, "chance": 0.2}
    figures = {"tags": [row | {"verdict": "learned"}], "judgements": ["spotted was not learned"]}
    file = run / "classifier" / "stage.json"
    record = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(record | {"figures": figures}), encoding="utf-8")
    main(["status", str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "look at first:"
    assert lines[1].startswith(("  trust: 0 for", "  trust: least in"))
    stages = lines[lines.index("") + 1 :]
    assert [line.split()[0] for line in stages[:2]] == ["train_classifier", "class"]
    (said,) = (line.split() for line in lines if line.split()[:1] == ["striped"])
    assert said[2:4] == ["46", "20"]
    assert said[-1] == "learned"
    assert "  train_classifier: spotted was not learned" in lines[: lines.index("")]
    found = document(capsys, "status", run)
    (own,) = (found for found in found["classes"] if found["class"] == "striped")
    assert (own["ap"], own["chance"], own["verdict"]) == (0.456, 0.2, "learned")
    assert found["judgements"][0] == {
        "stage": "train_classifier",
        "judgement": "spotted was not learned",
    }


LOAD_NO_TORCH = """
--help
--version
run --help
settings own_images
check TOY
check TOY --json
status RUN
status RUN --verify --json
report RUN
export RUN --out OUT
"""
ONE_AFTER_THE_OTHER = """
import sys
from affinitynet.cli import main
for words in {commands!r}:
    try:
        main(words)
    except SystemExit as end:
        assert not end.code, words
    loaded = {{"torch", "timm", "numba"}} & set(sys.modules)
    assert not loaded, (words, loaded)
"""


def test_commands_that_load_no_torch(ran: Path, toy: Path, tmp_path: Path) -> None:
    paths = {"TOY": str(toy), "RUN": str(ran), "OUT": str(tmp_path / "out")}
    lines = LOAD_NO_TORCH.split("\n")[1:-1]
    commands = [[paths.get(word, word) for word in line.split()] for line in lines]
    code = ONE_AFTER_THE_OTHER.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_quiet_and_verbose(
    toy: Path, tmp_path: Path, tiny_recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the command and after it; results on stdout stay."""
    out = tmp_path / "run"
    given = ["run", str(tiny_recipe), "--data", str(toy), "--out", str(out)]
    given += ["--until", "train_classifier"]
    main([*given, "--quiet"])
    said = capsys.readouterr()
    assert said.out == f"report: {out / 'report' / 'index.html'}\n"
    assert all(line.startswith("warning: ") for line in said.err.splitlines())
    main(["--verbose", *given])
    said = capsys.readouterr()
    assert f"s  affinitynet {affinitynet.__version__}, Python" in said.err
    assert f"run folder {out}" in said.err
    assert "s in all" in said.err.splitlines()[-1]
    main(given)
    said = capsys.readouterr()
    assert "train_classifier: done before" in said.err
    assert "s in all" not in said.err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_output_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no picture")
    labels = "image,labels\nimages/a.png,猫\n"
    (tmp_path / "labels.csv").write_text(labels, encoding="utf-8")
    done = call("check", tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "?  " in done.stdout
    done = call("check", tmp_path, "--json", PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout)["classes"] == ["猫"]


def test_no_escape_codes_in_a_pipe(toy: Path) -> None:
    for words in (["--help"], ["run", "--help"], ["check", toy], ["settings"]):
        assert "\x1b" not in call(*words).stdout


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_no_color_on_a_terminal(toy: Path) -> None:
    """With NO_COLOR stdout has no escape code; without it the table's head is bold."""
    import pty

    def on_terminal(*words: str | Path, **environment: str) -> str:
        ours, theirs = pty.openpty()
        terminal = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
        terminal |= {"TERM": "xterm-256color", **environment}
        command = [sys.executable, "-m", "affinitynet", *map(str, words)]
        with subprocess.Popen(
            command, stdout=theirs, stderr=subprocess.DEVNULL, env=terminal
        ) as running:
            os.close(theirs)
            said = b""
            try:
                while part := os.read(ours, 4096):
                    said += part
            except OSError:  # Linux says so at the terminal's end
                pass
            assert running.wait() == 0
        os.close(ours)
        return said.decode()

    assert "\x1b[" in on_terminal("check", toy)
    assert "\x1b" not in on_terminal("check", toy, NO_COLOR="1")
    assert "\x1b" not in on_terminal("run", "--help", NO_COLOR="1")


def test_public_names() -> None:
    names = [name for name in dir(affinitynet) if not name.startswith("_")]
    assert names == sorted(affinitynet.__all__, key=lambda name: names.index(name))
    assert {"run", "check_dataset", "export_run", "write_report", "read_dataset"} <= set(names)
    folders = Path(affinitynet.__file__).parent.iterdir()
    modules = {path.stem for path in folders if path.suffix == ".py" or path.is_dir()}
    assert modules & set(names) == {"ops"}  # the one name that is a package on purpose


@pytest.mark.parametrize("name", affinitynet.__all__)
def test_public_names_are_found(name: str) -> None:
    assert getattr(affinitynet, name).__doc__


def test_all_masks_that_can_be_exported_are_choices() -> None:
    from affinitynet.command_line.export import MASKS
    from affinitynet.export.folders import EXPORTABLE

    assert sorted(MASKS) == sorted(("final", *EXPORTABLE))


def test_all_formats_of_masks_and_networks_are_choices() -> None:
    from affinitynet.command_line.export import MaskFormat, ModelFormat
    from affinitynet.export.formats import FORMATS
    from affinitynet.models.export import MODEL_FORMATS

    assert get_args(MaskFormat) == tuple(FORMATS)
    assert get_args(ModelFormat) == tuple(MODEL_FORMATS)


def test_flags_about_masks_are_refused_with_a_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("export", tmp_path, "--out", tmp_path / "new", "--format", "onnx", "--partial")
    assert "takes no flag about masks" in fails(capsys, *words)


def test_tune_prints_what_it_chose(
    ran: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(ran, run)
    main(["tune", str(run), "--images", "5"])
    printed = capsys.readouterr().out
    assert "walk.crf.bilateral_srgb" in printed
    assert "on 5 images" in printed
    assert f"curves: {run / 'tune'}" in printed
    found = document(capsys, "tune", run, "--images", "5")
    assert set(found["curves"]) >= {"alpha", "beta", "steps"}
    assert "no such folder of masks" in fails(capsys, "tune", run, "--masks", tmp_path / "none")
