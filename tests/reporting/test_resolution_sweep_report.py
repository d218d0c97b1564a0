"""The table and the picture of a sweep over test sizes."""

from PIL import Image

from effnetv2_tf.reporting.resolution_sweep import draw_sweep, sweep_table


def _row(run, size, cost, accuracy, by_cost, by_latency):
    return {
        "run": run,
        "image_size": size,
        "training_size": 160,
        "multiply_adds": cost,
        "latency_ms": cost / 1e8,
        "top_1": accuracy,
        "top_5": accuracy,
        "images": 100,
        "best_by_multiply_adds": by_cost,
        "best_by_latency": by_latency,
    }


ROWS = [
    _row("reduced", 160, 200_000_000, 0.75, True, False),
    _row("reduced", 224, 390_000_000, 0.79, True, True),
    _row("a", 192, 500_000_000, 0.7, False, False),
]


def test_the_table():
    header, first, second, third = sweep_table(ROWS).splitlines()
    assert header == ("run        px  mult-adds        ms    top-1    top-5  Pareto-optimal by")
    assert first == "reduced   160      200 M      2.00   75.00%   75.00%  multiply-adds"
    assert second.split("%")[-1].strip() == "multiply-adds and latency"
    assert third == "a         192      500 M      5.00   70.00%   70.00%"


def test_the_picture(tmp_path):
    for rows in (ROWS, ROWS[:1]):
        path = tmp_path / "sweep.png"
        draw_sweep(rows, path, "title", 1, "a machine")
        with Image.open(path) as picture:
            assert picture.size == (1320, 672)
            assert len(picture.convert("RGB").getcolors(100_000)) > 50
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.png"]
