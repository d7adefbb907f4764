"""No step changes what it computes under the version of what is cached already."""

import json

import pytest

from busi_pipeline.caching.fingerprints import Step
from tests.unit.caching.step_code import RECORD, describe_steps, find_steps

REMEDY = (
    "run `make record-steps` (python -m tests.unit.caching.step_code --record) and commit "
    f"{RECORD.name}"
)
RECORDED = json.loads(RECORD.read_text())
STEPS = find_steps()
NOW = describe_steps()


@pytest.mark.parametrize("name", sorted(STEPS))
def test_a_changed_step_has_a_new_version(name: str) -> None:
    now, before = NOW[name], RECORDED.get(name)
    assert before is not None, f"the step {name} is new: {REMEDY}"
    if now["version"] == before["version"]:
        assert now["digest"] == before["digest"], (
            f"the code of the step {name} changed. If its arithmetic did, raise the version in its "
            f"Step first, or what the old code cached is used as if it were new. Then {REMEDY}"
        )
    else:
        assert now["version"] > before["version"], f"the version of {name} must not be lowered"
        assert now == before, f"the version of {name} was raised: {REMEDY}"


def test_the_record_holds_no_step_that_is_gone() -> None:
    assert set(RECORDED) <= set(STEPS), REMEDY


@pytest.mark.parametrize("step", STEPS.values(), ids=list(STEPS))
def test_libraries_of_a_step_are_installed(step: Step) -> None:
    assert step.fingerprint(size=1).values["libraries"].keys() == set(step.libraries)
