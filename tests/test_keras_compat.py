"""The differences between Keras 2 and Keras 3 live in one module."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = ROOT / "effnetv2_tf" / "keras_compat.py"
# Comparing a version, in whatever way.
CHECK = re.compile(
    r"KERAS_3|(keras|tf|tensorflow)\.(__version__|version\.VERSION)(?!,)|packaging\.version"
)


@pytest.mark.parametrize("folder", ["effnetv2_tf", "export"])
def test_no_version_is_checked_elsewhere(folder):
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path != ALLOWED
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if CHECK.search(line)
    ]
    assert not found, "\n".join(found)


def test_the_module_itself_does():
    assert CHECK.search(ALLOWED.read_text(encoding="utf-8"))
