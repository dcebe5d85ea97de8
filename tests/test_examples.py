"""Each example runs and prints what it promises."""

import ast
import json
import re
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

import vitsearch
from helpers.paths import ROOT
from vitsearch.evaluation import load_trained

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"
SHORT = ("quickstart", "zero_shot_label", "linear_probe", "finetune_vit")


Run = Callable[..., list[str]]


@pytest.fixture(scope="module")
def run(programs: Path) -> Run:
    """Runs an example and returns its lines."""

    def lines_of(script: str, *arguments: str) -> list[str]:
        command = [programs / "python", EXAMPLES / script, *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    return lines_of


@pytest.fixture(scope="module")
def drawn(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    run("draw_sample_photos.py", str(folder))
    vitsearch.index_folder(folder, encoder="colour")
    return folder


@pytest.mark.parametrize("script", [*SHORT, "compare_zero_shot_and_supervised"])
def test_without_arguments_an_example_says_how_it_is_called(programs: Path, script: str) -> None:
    file = EXAMPLES / f"{script}.py"
    done = subprocess.run([programs / "python", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.strip() == (ast.get_docstring(ast.parse(file.read_text())) or "")
    assert f"python examples/{script}.py PHOTOS" in done.stderr


@pytest.mark.parametrize("script", ["vit_step_by_step", "attention_cost"])
@pytest.mark.parametrize("package", ["matplotlib", "torch"])
def test_a_missing_package_is_named(programs: Path, script: str, package: str) -> None:
    program = (
        f"import runpy, sys; sys.modules[{package!r}] = None; "
        f"runpy.run_path({str(EXAMPLES / f'{script}.py')!r}, run_name='__main__')"
    )
    done = subprocess.run([programs / "python", "-c", program], capture_output=True, text=True)
    expected = f"this needs {package}: pip install '.[clip,examples]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", expected)


def test_quickstart(run: Run, drawn: Path) -> None:
    lines = run("quickstart.py", str(drawn), "red")
    names = sorted(photo.path for photo in vitsearch.Collection.open(drawn).photos())
    assert lines[0] == f"{len(names)} photos are searchable"
    assert [line.split("  ")[1] for line in lines[1:]] == [
        hit.path for hit in vitsearch.Collection.open(drawn).search("red", 5)
    ]


def test_zero_shot_label(run: Run, drawn: Path) -> None:
    lines = run("zero_shot_label.py", str(drawn), "red", "green", "blue")
    expected = vitsearch.Collection.open(drawn).label(["red", "green", "blue"], templates="simple")
    assert [line.split()[1:] for line in lines[:-1]] == [[one.label, one.path] for one in expected]


def shown_by_cells(notebook: Path) -> list[Any]:
    """Run the cells of a notebook in order, as Jupyter does, and return what each one shows: the
    value of its last expression.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] != "code":
            continue
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        *statements, last = ast.parse("".join(cell["source"])).body
        value = last.value if isinstance(last, ast.Expr) else None
        exec(
            compile(ast.Module(statements if value else [*statements, last], []), "", "exec"), names
        )
        if value:
            shown.append(eval(compile(ast.Expression(value), "", "eval"), names))
    return shown


def test_notebook(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas", reason="needs the extra vitsearch[examples]")
    monkeypatch.syspath_prepend(str(EXAMPLES))  # where Jupyter runs it
    photos, results, similar, picture, table, shape = shown_by_cells(EXAMPLES / "notebook.ipynb")
    assert [each._repr_html_().count("<img ") for each in (photos, results, similar)] == [12, 4, 4]
    assert results[0].path == "shapes/red-square.png"
    assert picture.size == (320, 240)
    assert sorted(table["path"][:2]) == ["blue-square.jpg", "shapes/blue-circle.png"]
    assert shape == (12, 27)
    first, *printed = capsys.readouterr().out.splitlines()
    assert (first, len(printed)) == ("shapes/red-square.png 320 x 240", 5)


def assert_drawn(file: Path, size: tuple[int, int]) -> None:
    with Image.open(file) as picture:
        assert (picture.format, picture.size) == ("PNG", size)
        assert min(ImageStat.Stat(picture.convert("RGB")).stddev) > 20  # not one colour


plots = pytest.mark.skipif(
    not (find_spec("torch") and find_spec("matplotlib")),
    reason="needs the extras vitsearch[clip,examples]",
)


@plots
def test_vit_step_by_step_without_weights(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="needs the extra vitsearch[examples]")
    lines = run("vit_step_by_step.py", "-o", str(tmp_path / "steps.png"))
    shapes = [line[80:].strip() for line in lines]
    tokens = "1 x 197 x 768"
    assert shapes[:5] == ["1 x 3 x 224 x 224", "1 x 196 x 768", "1 x 196 x 768", tokens, ""]
    assert shapes[5:11] == [
        tokens,
        "1 x 12 x 197 x 64",
        "1 x 12 x 197 x 197",
        tokens,
        "1 x 197 x 3072",
        tokens,
    ]
    assert shapes[11:26] == [tokens] * 13 + ["1 x 768", "1 x 1000"]
    assert lines[1].startswith("cut into 14 x 14 = 196 patches of 16 x 16 x 3 = 768 values ")
    assert lines[26].startswith("the same as model(image): greatest difference ")
    assert float(lines[26].split()[-1]) < 1e-4
    assert lines[27:] == [f"drawn: {tmp_path / 'steps.png'}"]
    assert_drawn(tmp_path / "steps.png", (1600, 880))


TINY_VIT = """
import sys
import transformers
sizes = dict(hidden_size=24, num_hidden_layers=1, num_attention_heads=3, intermediate_size=96)
labels = {0: "cat", 1: "dog", 2: "car"}
config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8, id2label=labels)
transformers.ViTForImageClassification(config).save_pretrained(sys.argv[1])
"""


@plots
@pytest.mark.skipif(not find_spec("transformers"), reason="needs the extra vitsearch[clip]")
def test_vit_step_by_step_with_weights(
    run: Run, programs: Path, drawn: Path, tmp_path: Path
) -> None:
    model = tmp_path / "tiny"
    subprocess.run([programs / "python", "-c", TINY_VIT, model], check=True, capture_output=True)
    lines = run(
        "vit_step_by_step.py",
        str(drawn / "blue-square.jpg"),
        "--weights",
        str(model),
        "-o",
        str(tmp_path / "steps.png"),
    )
    assert [
        line[80:].strip() for line in lines if line.startswith(("cut", "  attention", "head"))
    ] == [
        "1 x 16 x 192",
        "1 x 3 x 17 x 17",
        "1 x 3",
    ]
    scores = [line.split() for line in lines[-4:-1]]
    assert sorted(label for _, label in scores) == ["car", "cat", "dog"]
    assert sum(float(score.rstrip("%")) for score, _ in scores) == pytest.approx(100, abs=0.2)
    assert_drawn(tmp_path / "steps.png", (1600, 695))


@plots
def test_attention_cost(run: Run, tmp_path: Path) -> None:
    lines = run(
        "attention_cost.py",
        "--tokens",
        "16,64,256",
        "--repeat",
        "1",
        "-o",
        str(tmp_path / "cost.png"),
    )
    rows = [line.split() for line in lines[1:4]]
    assert [row[:2] for row in rows] == [["16", "64x64"], ["64", "128x128"], ["256", "256x256"]]
    plain, fused = [float(row[4]) for row in rows], [float(row[8]) for row in rows]
    assert plain[2] >= 12 * 256 * 256 * 4 / 1e6  # at least the weights of 12 heads
    assert fused[2] < plain[2] / 2
    assert [line.partition(" ")[0] for line in lines[5:7]] == ["plain:", "fused:"]
    assert lines[7:] == ["(16.0 squared is 256)", f"drawn: {tmp_path / 'cost.png'}"]
    assert_drawn(tmp_path / "cost.png", (1320, 572))


def test_compare_zero_shot_and_supervised(run: Run, tmp_path: Path) -> None:
    for name, colour in (("sea/a.png", "blue"), ("sea/b.png", "navy"), ("meadow/c.png", "green")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (64, 48), colour).save(tmp_path / name)
    lines = run(
        "compare_zero_shot_and_supervised.py", str(tmp_path), "sea = seashore", "meadow = valley"
    )
    assert [line.split()[0] for line in lines[:2]] == ["zero-shot", "supervised"]
    assert all(re.fullmatch(r"\S+ +\d of 3 right \(\d+% to \d+%\)", line) for line in lines[:2])
    assert re.fullmatch(r"they agree on \d of 3 photos", lines[2])
    assert len(lines) == 3 + 3 - int(lines[2].split()[3])


def test_every_example_is_run_here() -> None:
    tested = Path(__file__).read_text(encoding="utf-8")
    assert [
        script.name for script in EXAMPLES.glob("*.py") if f'"{script.name}"' not in tested
    ] == []


def test_linear_probe(run: Run, drawn: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra vitsearch[probe]")
    paths = [photo.path for photo in vitsearch.Collection.open(drawn).photos()]
    truth = {
        path: "first" if place < len(paths) / 2 else "second" for place, path in enumerate(paths)
    }
    (tmp_path / "truth.csv").write_text(
        "path,label\n" + "".join(f"{path},{label}\n" for path, label in truth.items()),
        encoding="utf-8",
    )
    lines = run("linear_probe.py", str(drawn), str(tmp_path / "truth.csv"), str(tmp_path / "probe"))
    assert f" of {len(truth)} photos right" in lines[0]
    expected = vitsearch.Collection.open(drawn).label(load_trained(tmp_path / "probe"))
    assert [line.split()[1:] for line in lines[1:]] == [[one.label, one.path] for one in expected]


def test_finetune_vit(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="needs the extra vitsearch[clip]")
    for name, colour in (("dark", "black"), ("light", "white")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (40 + number, 32), colour).save(
                tmp_path / "photos" / name / f"{number}.png"
            )
    lines = run("finetune_vit.py", str(tmp_path / "photos"), "folders", str(tmp_path / "model"))
    epochs = [line for line in lines if line.startswith("epoch ")]
    assert epochs[0] == "epoch 0: 2 of 2 photos left out are right"
    assert lines[len(epochs)].startswith("kept epoch ")
    assert [line.split()[1] for line in lines[len(epochs) + 1 :]] == ["dark"] * 3 + ["light"] * 3
