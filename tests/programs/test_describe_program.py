"""From the command line: what a network is, as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from effnetv2_tf.description import describe_spec, list_values
from effnetv2_tf.models.families import SPECS

PARAMETERS = {
    "efficientnetv2-b0": 7_200_312,
    "efficientnetv2-b1": 8_212_124,
    "efficientnetv2-b2": 10_178_374,
    "efficientnetv2-b3": 14_467_622,
    "efficientnetv2-s": 21_612_360,
    "efficientnetv2-m": 54_431_388,
    "efficientnetv2-l": 119_027_848,
    "efficientnetv2-xl": 208_896_832,
    "efficientnet-b0": 5_330_564,
    "efficientnet-b1": 7_856_232,
    "efficientnet-b2": 9_177_562,
    "efficientnet-b4": 19_466_816,
    "efficientnet-b5": 30_562_520,
    "efficientnet-b6": 43_265_136,
}


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "effnetv2_tf.describe", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_networks_in_one_table():
    done = run()
    assert done.returncode == 0, done.stderr
    header, *lines, blank, nasnets = done.stdout.splitlines()
    assert (blank, nasnets.split(": ")[0]) == ("", "nasnet-mobile, nasnet-large")
    assert header.split() == [
        "network", "parameters", "multiply-adds", "trained", "at", "evaluated", "at",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines] == list(SPECS)
    row = next(line for line in lines if line.startswith("efficientnetv2-s "))
    assert row.split() == ["efficientnetv2-s", "21,612,360", "8.37", "G", "300", "px", "384", "px"]
    assert run("--model=list").stdout == done.stdout


def test_known_parameter_counts():
    counts = {value["name"]: value["parameters"] for value in list_values(SPECS.values())}
    assert {name: counts[name] for name in PARAMETERS} == PARAMETERS


def test_names_and_sizes_need_no_tensorflow():
    code = (
        "import sys, effnetv2_tf.describe, effnetv2_tf.description, effnetv2_tf.models.names; "
        "sys.exit('tensorflow' in sys.modules or 'keras' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_table_of_a_network():
    done = run("--model=V2-S", "--image_size=256")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "efficientnetv2-s at 256 px: 21.6 M parameters, 3.72 G multiply-adds"
    cells = {line.split()[0]: line.split() for line in lines[2:] if line}
    assert cells["stem"][1:6] == ["conv", "3x3", "2", "128x128", "24"]
    assert cells["stage6"][1:] == [
        "mbconv,", "expansion", "6,", "SE", "0.25", "3x3", "2", "8x8", "256", "15",
        "14,659,368", "775,461,888",
    ]  # fmt: skip
    assert cells["total"][1] == "21,612,360"
    assert "Input: pixels in [0, 255]; the network computes (x - 128) / 128" in lines
    assert "Evaluation: the whole image, stretched to the square, bilinear" in lines
    assert "Trained at: 300 px" in lines


def test_json_and_a_picture(tmp_path):
    path = tmp_path / "lite0.png"
    done = run("--model=lite0", "--json", f"--picture={path}")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert values == json.loads(json.dumps(describe_spec(SPECS["efficientnet-lite0"]).as_dict()))
    assert values["parameters"] == sum(row["parameters"] for row in values["stages"])
    assert values["preprocessing"]["normalization"] == {"mean": [127.0], "std": [128.0]}
    with Image.open(path) as picture:
        assert picture.format == "PNG"


def test_a_run(tiny_run):
    done = run(f"--model_dir={tiny_run}", "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert (values["image_size"], values["settings"]) == ([16, 16], {"classes": 10})
    assert values["stages"][-1]["channels"] == 10
    assert values["preprocessing"]["crop"] == "none"
    assert values["origin"].endswith("step 7, raw weights")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model=efficientnetv2-sx",), "--model: unknown network 'efficientnetv2-sx'; did you "
         "mean 'efficientnetv2-s'?"),
        (("--model=lite0", "--file=x.keras"), "expected one of --model, --model_dir, --file, "
         "received --model and --file"),
        (("--file=/no/such.keras",), "--file: expected a .keras file, /no/such.keras does not"),
        (("--model_dir=/no/such",), "--model_dir: expected the folder of a training run"),
        (("--picture=x.png",), "--picture: expected with --model=NAME"),
        (("--model=b0", "--image_size=0"), "image_size"),
        (("b0",), "unexpected argument 'b0'"),
    ],
)  # fmt: skip
def test_wrong_use_is_one_line_and_2(arguments, message):
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert message in done.stderr
    assert done.stdout == ""
