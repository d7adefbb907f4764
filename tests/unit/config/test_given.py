"""The parameters of a command, as pages show them."""

import pytest

from busi_pipeline.config.given import list_given


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"split": {"seed": 1, "method": "random"}}, ["split.seed=1", "split.method=random"]),
        (
            {"promotion": {"who": None, "why": "95 / 60"}},
            ["promotion.who=null", "promotion.why=95 / 60"],
        ),
        ({"training": {"x": True}}, ["training.x=true"]),
        ({"external": {"folder": "/data/Doe, Jane"}}, ["external.folder=<folder>"]),
        ({"prediction": {"folder": "scans/Doe"}}, ["prediction.folder=<folder>"]),
        ({"anything": "~/Doe"}, ["anything=<anything>"]),
        ({"ingestion": {"sites": ["a", "b"]}}, ["ingestion.sites=<list>"]),
    ],
)
def test_places_on_this_machine_are_not_shown(given: dict[str, object], shown: list[str]) -> None:
    assert list_given(given) == shown
