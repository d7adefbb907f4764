"""What a flag means is Bayes' rule on what the model was tested on."""

from pathlib import Path

import pandas as pd
import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.models.packaged import TESTED_FILE, load_package
from busi_pipeline.serving.page.meaning import Meanings, measure_flag
from busi_pipeline.stats.classes import Classes
from tests.package_factories import write_tiny_package

CLASSES = Classes(("benign", "malignant"), ("malignant",))


def make_tested(found: int, missed: int, alarms: int, quiet: int, repeat: int = 1) -> pd.DataFrame:
    rows = [("malignant", True)] * found + [("malignant", False)] * missed
    rows += [("benign", True)] * alarms + [("benign", False)] * quiet
    table = pd.DataFrame(rows, columns=["label", "flagged"])
    return table.assign(group=[str(number) for number in range(len(rows))], repeat=repeat)


def test_shares_are_carried_to_the_prevalence() -> None:
    meaning = measure_flag(make_tested(18, 2, 20, 60), CLASSES, 0.1)
    assert meaning is not None
    # Of 1000: 100 malignant, 90 flagged; 900 others, 225 flagged.
    assert meaning.positive_if_flagged.value == pytest.approx(90 / 315)
    assert meaning.positive_if_not.value == pytest.approx(10 / 685)
    for share in (meaning.positive_if_flagged, meaning.positive_if_not, meaning.sensitivity):
        assert 0 <= share.low < share.value < share.high <= 1
    assert (meaning.images, meaning.positives) == (100, 20)


def test_of_several_repeats_one_counts() -> None:
    once = make_tested(18, 2, 20, 60)
    twice = pd.concat([once, make_tested(20, 0, 0, 80, repeat=2)])
    assert measure_flag(twice, CLASSES, 0.1) == measure_flag(once, CLASSES, 0.1)


def test_without_both_kinds_nothing_is_said() -> None:
    assert measure_flag(make_tested(5, 1, 0, 0), CLASSES, 0.1) is None


def test_a_table_that_was_changed_is_refused(tmp_path: Path) -> None:
    write_tiny_package(tmp_path)
    model = load_package(tmp_path)
    meanings = Meanings()
    assert meanings.find(model, 0.05) is not None
    with (tmp_path / TESTED_FILE).open("a") as file:
        file.write("\n")
    assert meanings.find(model, 0.05) is not None, "it is known"
    with pytest.raises(BadInputError, match="was changed"):
        meanings.find(model, 0.06)
