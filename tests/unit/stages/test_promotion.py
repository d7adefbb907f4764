"""A model gets a role only with all that is asked; roles, ledger, folders and MLflow agree."""

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from kedro.io import DatasetError
from mlflow.tracking import MlflowClient

from busi_pipeline.datasets.chosen_package import ChosenPackageDataset
from busi_pipeline.datasets.model_registry import ModelRegistry, list_heads
from busi_pipeline.errors import BadInputError
from busi_pipeline.models.ledger import CHALLENGER, CHAMPION, PREVIOUS
from busi_pipeline.models.model_store import ModelStore
from busi_pipeline.models.packaged import PackagedModel, load_package
from busi_pipeline.pipelines.promotion.nodes import (
    check_gate,
    check_registry,
    give_role,
    list_champions,
    read_moment,
    report,
    roll_back,
)
from busi_pipeline.stats.classes import Classes
from tests.factories import load_parameters
from tests.package_factories import CLASS_NAMES, make_parts, make_tested, write_tiny_package


def load_settings(group: str, changes: dict[str, Any] | None = None) -> Any:
    """Return the project's settings of a group, changed."""
    return load_parameters({group: changes or {}})[group]  # type: ignore[literal-required]


CLASSES = Classes(CLASS_NAMES, ["malignant"], ["normal"])
NAME = "tiny_model"
EXPORT = pd.DataFrame(
    [
        {
            "network": network,
            "images": 20,
            "largest_difference": 1e-6,
            "changed_classes": 0,
            "changed_flags": 0,
            "positive_auc": 0.9,
        }
        for network in ("keras", "single", "half", "int8")
    ]
)

PASSED = pd.DataFrame(
    [
        {"line": "external_auc", "asked": True, "passed": True, "value": 0.8, "limit": 0.75},
        {"line": "champion", "asked": True, "passed": True, "value": float("nan"), "limit": 0.0},
    ]
).assign(finding="")


@pytest.fixture
def with_files() -> None:
    """The model is logged as users log it: its folder, and the code."""


@pytest.fixture(autouse=True)
def quick(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A version in MLflow's registry without the model's files, unless a test has `with_files`."""
    if "with_files" in request.fixturenames:
        return

    def register(folder: Path, name: str, described: Any, registered_name: str) -> Any:
        client = MlflowClient()
        if not client.search_registered_models(f"name = '{registered_name}'"):
            client.create_registered_model(registered_name)
        made = client.create_model_version(registered_name, str(folder))
        return SimpleNamespace(registered_model_version=made.version)

    monkeypatch.setattr("busi_pipeline.datasets.model_registry.log_package", register)


@pytest.fixture
def registry(tmp_path: Path) -> ModelRegistry:
    return ModelRegistry(ModelStore(tmp_path / "models"), NAME)


def pack(folder: Path, name: str, **changes: Any) -> PackagedModel:
    return load_package(write_tiny_package(folder / "models" / name / "package", **changes))


def make_external(auc: float = 0.8) -> dict[str, Any]:
    return {"external": {"site": "elsewhere", "model": {}, "images": {"auc": auc}}}


def measure(
    package: PackagedModel, registry: ModelRegistry, external: Any = None, **changes: Any
) -> pd.DataFrame:
    promotion = load_settings("promotion", {"why": "a test"} | changes)
    return check_gate(
        package,
        EXPORT,
        make_external() if external is None else external,
        registry,
        promotion,
        load_settings("packaging"),
        load_settings("evaluation", {"n_resamples": 100}),
        CLASSES,
    )


def promote(
    package: PackagedModel,
    registry: ModelRegistry,
    gate: pd.DataFrame | None = None,
    **changes: Any,
) -> dict[str, Any]:
    promotion = load_settings("promotion", {"why": "a test", "who": "me"} | changes)
    if gate is None:
        champion = registry.read_ledger().roles.get(CHAMPION, "")
        gate = PASSED.assign(version=package.version, role=promotion.role, champion=champion)
    return give_role(package, gate, registry, promotion)


def read_aliases() -> dict[str, str]:
    aliases = MlflowClient().get_registered_model(NAME).aliases
    return {role: str(number) for role, number in aliases.items()}


def test_a_good_model_passes_every_line(tmp_path: Path, registry: ModelRegistry) -> None:
    gate = measure(pack(tmp_path, "one"), registry).set_index("line")
    assert gate["asked"].all()
    assert gate["passed"].all(), gate["finding"].tolist()
    assert gate.loc["external_auc", "value"] == 0.8
    assert 0.8 <= gate.loc["sensitivity", "value"] < 1


BAD = {
    "sensitivity": (
        {"tested": make_tested(shift=-4)},
        {"max_calibration_error": None},
        r"0.8, 0\.\d+ below",
    ),
    "specificity": ({"tested": make_tested().assign(flagged=True)}, {}, "specificity is 0.000"),
    "external_auc": ({}, {"external": make_external(0.662)}, r"0.662 .*0.75, 0.088 below"),
    "card": ({"card": " \n"}, {}, "card has 0 words"),
    "duplicates": (
        {"tested": make_tested().assign(group=["0", *map(str, range(100, 159))])},
        {},
        "1 test images",
    ),
    "duplicates of folds": (
        {
            "tested": make_tested().assign(
                fold=np.arange(60) % 5 + 1, group=[f"{n // 2}" for n in range(60)]
            ),
            "description": make_parts().description | {"of_folds": True},
        },
        {},
        "30 test images",
    ),
    "calibration": ({}, {"max_calibration_error": 0.01}, "calibration error .* above"),
}


@pytest.mark.parametrize("line", BAD)
def test_a_refusal_names_the_line_and_by_how_much(
    tmp_path: Path, registry: ModelRegistry, line: str
) -> None:
    changes, settings, expected = BAD[line]
    package = pack(tmp_path, "one", **changes)
    gate = measure(package, registry, **settings)
    failed = gate[gate["asked"] & ~gate["passed"]]
    assert failed["line"].tolist() == [line.partition(" ")[0]]
    with pytest.raises(BadInputError, match=expected):
        give_role(package, gate, registry, load_settings("promotion", {"why": "a test"}))
    assert registry.read_ledger().entries == ()


def test_an_export_that_differs_is_refused(tmp_path: Path, registry: ModelRegistry) -> None:
    export = EXPORT.assign(largest_difference=2e-5)
    gate = check_gate(
        pack(tmp_path, "one"),
        export,
        make_external(),
        registry,
        load_settings("promotion"),
        load_settings("packaging"),
        load_settings("evaluation", {"n_resamples": 100}),
        CLASSES,
    )
    assert gate.loc[~gate["passed"], "line"].tolist() == ["export"]
    assert "differ by up to 2.0e-05" in gate.loc[~gate["passed"], "finding"].iloc[0]


@pytest.mark.parametrize("external", ["none", "other"])
def test_a_model_without_its_own_test_elsewhere_is_refused(
    tmp_path: Path, registry: ModelRegistry, external: str
) -> None:
    metrics = make_external() if external == "other" else None
    if metrics is not None:
        metrics["external"]["model"] = {"model_sha256": "of an older training"}
    package = pack(tmp_path, "one")
    gate = check_gate(
        package,
        EXPORT,
        metrics,
        registry,
        load_settings("promotion"),
        load_settings("packaging"),
        load_settings("evaluation", {"n_resamples": 100}),
        CLASSES,
    )
    failed = gate[~gate["passed"]]
    assert failed["line"].tolist() == ["external_auc"]
    assert "validate_external_tiny" in failed["finding"].iloc[0]


def test_what_is_not_asked_does_not_fail(tmp_path: Path, registry: ModelRegistry) -> None:
    package = pack(tmp_path, "one")
    gate = measure(package, registry, make_external(0.5), min_external_auc=None)
    line = gate.set_index("line").loc["external_auc"]
    assert not line["asked"]
    assert line["value"] == 0.5


def test_a_challenger_needs_less(tmp_path: Path, registry: ModelRegistry) -> None:
    gate = measure(pack(tmp_path, "one"), registry, make_external(0.5), role=CHALLENGER)
    assert gate.loc[gate["asked"], "line"].tolist() == ["card", "export", "duplicates"]


def test_a_worse_model_does_not_follow_the_champion(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    promote(pack(tmp_path, "one", tested=make_tested(300, shift=2)), registry)
    worse = pack(tmp_path, "two", tested=make_tested(300, shift=-3))
    gate = measure(worse, registry, min_sensitivity=None, max_calibration_error=None)
    with pytest.raises(BadInputError, match=r"worse than the champion: .*malignant -0"):
        promote(worse, registry, gate)
    assert registry.read_ledger().roles.keys() == {CHAMPION}


def test_models_tested_on_other_images_are_not_compared(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    promote(pack(tmp_path, "one"), registry)
    other = make_tested().assign(image_id=[f"other {number}" for number in range(60)])
    package = pack(tmp_path, "two", tested=other)
    with pytest.raises(BadInputError, match="0 of the same images, 0 of them malignant"):
        promote(package, registry, measure(package, registry))
    promote(package, registry, measure(package, registry, not_worse_than_champion=False))


@pytest.mark.parametrize("shift", [0, -3])
def test_a_test_set_meets_folds_on_the_images_that_both_were_tested_on(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry, shift: float
) -> None:
    again = make_tested(90).assign(repeat=2, flagged=False, p_malignant=0.0)
    in_folds = pd.concat([make_tested(90), again], ignore_index=True)
    promote(pack(tmp_path, "one", tested=in_folds), registry)
    same = make_tested(90, shift=shift)
    relabelled = same["image_id"].where(same.index > 50, "other " + same["image_id"])
    changed = same["pixel_sha256"].where(same.index < 80, "changed")
    tested = same.assign(image_id=relabelled, pixel_sha256=changed)
    package = pack(tmp_path, "two", tested=tested, card="# Another card")
    line = measure(package, registry).set_index("line").loc["champion"]
    shared = same.iloc[51:80]
    positives = int((shared["label"] == "malignant").sum())
    assert f"on the 29 images that both were tested on, {positives} of them" in line["finding"]
    assert line["passed"] == (shift == 0), line["finding"]
    assert (line["value"] == 0) == (shift == 0), "the second repeat does not count"


def test_roles_change_places(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    one = pack(tmp_path, "one")
    two = pack(tmp_path, "two", card="# Another card\n")
    promote(one, registry)
    assert read_aliases() == {CHAMPION: "1"}
    promote(two, registry, role=CHALLENGER)
    assert read_aliases() == {CHAMPION: "1", CHALLENGER: "2"}
    promote(two, registry)
    assert registry.read_ledger().roles == {CHAMPION: two.version, PREVIOUS: one.version}
    assert read_aliases() == {CHAMPION: "2", PREVIOUS: "1"}
    record = roll_back(registry, load_settings("promotion", {"why": "too many flags"}))
    assert (record["action"], record["version"]) == ("rollback", one.version)
    assert read_aliases() == {CHAMPION: "1", PREVIOUS: "2"}
    assert registry.list_problems() == []
    found = ModelStore(tmp_path / "models").find()
    assert load_package(found).version == one.version
    table = list_champions(registry, load_settings("promotion"))
    assert table["version"].tolist() == [one.version, two.version, one.version]
    assert table["why"].tolist() == ["a test", "a test", "too many flags"]
    assert table["until"].tolist()[-1] == ""
    assert table["until"].tolist()[0] == table["from"].tolist()[1]


def test_the_ledger_says_what_was_asked(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    record = promote(pack(tmp_path, "one"), registry)
    assert (record["who"], record["why"]) == ("me", "a test")
    lines = {line["line"]: line for line in record["gate"]}
    assert lines["external_auc"] == {
        "line": "external_auc",
        "value": 0.8,
        "limit": 0.75,
        "asked": True,
        "passed": True,
    }
    assert lines["champion"]["value"] is None, "there was none"


@pytest.mark.usefixtures("with_files")
def test_a_registered_model_answers(
    tracked: mlflow.ActiveRun,
    tmp_path: Path,
    registry: ModelRegistry,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    package = pack(tmp_path, "one")
    with caplog.at_level(logging.INFO, "busi_pipeline"):
        promote(package, registry)
    assert f"{package.version} is version 1 of {NAME} in MLflow" in caplog.text
    said = capsys.readouterr().err
    assert "registered model" not in said
    assert "Created version" not in said
    for choice in (
        f"models:/{NAME}@champion",
        f"models:/{NAME}/1",
        CHAMPION,
        package.version,
        None,
    ):
        dataset = ChosenPackageDataset(path=str(tmp_path / "models"), name=NAME, choice=choice)
        assert dataset.load().version == package.version, choice
    for choice in (f"models:/{NAME}/7", f"runs:/{'0' * 32}/one_package"):
        dataset = ChosenPackageDataset(path=str(tmp_path / "models"), name=NAME, choice=choice)
        with pytest.raises(DatasetError, match="no packaged model at"):
            dataset.load()


def test_the_champion_is_kept_when_its_experiment_is_packed_anew(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    one = pack(tmp_path, "one")
    promote(one, registry)
    assert pack(tmp_path, "one", card="# A later card\n").version != one.version
    assert load_package(ModelStore(tmp_path / "models").find()).version == one.version


def test_why_must_be_given(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    with pytest.raises(BadInputError, match="say why"):
        promote(pack(tmp_path, "one"), registry, why=None)
    with pytest.raises(BadInputError, match="say why"):
        roll_back(registry, load_settings("promotion"))


def test_there_must_be_something_to_go_back_to(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    promote(pack(tmp_path, "one"), registry)
    with pytest.raises(BadInputError, match="no previous model"):
        roll_back(registry, load_settings("promotion", {"why": "a test"}))
    with pytest.raises(BadInputError, match="is the champion already"):
        promote(pack(tmp_path, "one"), registry)
    with pytest.raises(BadInputError, match="cannot challenge it"):
        promote(pack(tmp_path, "one"), registry, role=CHALLENGER)


def test_a_lost_champion_is_named_with_the_way_back(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    one, two = pack(tmp_path, "one"), pack(tmp_path, "two", card="# Another\n")
    promote(one, registry)
    promote(two, registry)
    store = ModelStore(tmp_path / "models")
    shutil.rmtree(store.kept(two.version))
    with pytest.raises(BadInputError, match=f"go back to tiny {one.version} with .*rollback"):
        store.find()
    with pytest.raises(BadInputError, match="is not in"):
        report(check_registry(registry))
    roll_back(registry, load_settings("promotion", {"why": "the champion is lost"}))
    assert load_package(store.find()).version == one.version


def test_a_version_deleted_in_mlflow_is_noticed(
    tracked: mlflow.ActiveRun,
    tmp_path: Path,
    registry: ModelRegistry,
    caplog: pytest.LogCaptureFixture,
) -> None:
    package = pack(tmp_path, "one")
    promote(package, registry)
    MlflowClient().delete_model_version(NAME, "1")
    assert read_aliases() == {}, "MLflow drops the alias without a word"
    dataset = ChosenPackageDataset(path=str(tmp_path / "models"), name=NAME)
    assert dataset.load().version == package.version
    assert f"version 1 of {NAME}, the champion, tiny {package.version}, was deleted" in caplog.text
    with pytest.raises(BadInputError, match="was deleted from MLflow's registry"):
        report(check_registry(registry))


def test_a_moved_alias_is_noticed(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    promote(pack(tmp_path, "one"), registry)
    promote(pack(tmp_path, "two", card="# Another\n"), registry)
    MlflowClient().set_registered_model_alias(NAME, CHAMPION, "1")
    (problem,) = check_registry(registry)["problem"]
    assert problem.startswith(f"in MLflow the alias champion is on version 1 of {NAME}")


def test_a_ledger_cut_short_is_noticed(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    promote(pack(tmp_path, "one"), registry)
    promote(pack(tmp_path, "two", card="# Another\n"), registry)
    ledger = registry.read_ledger()
    assert len(list_heads(ledger)) == 2
    first = ledger.path.read_text().splitlines()[0]
    ledger.path.write_text(first + "\n")
    problems = check_registry(registry)["problem"].tolist()
    assert any("not the ledger that MLflow knows, of 2 lines" in problem for problem in problems)
    with pytest.raises(BadInputError, match=r"not the ledger .*Nothing was changed"):
        promote(pack(tmp_path, "three", card="# A third\n"), registry)
    ledger.path.unlink()
    (problem,) = check_registry(registry)["problem"]
    assert "not the ledger that MLflow knows, of 2 lines" in problem


def test_roles_that_a_run_left_half_given_are_mended(
    tracked: mlflow.ActiveRun,
    tmp_path: Path,
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ledger decides: what ended between it and MLflow is put right by the same command."""
    one = pack(tmp_path, "one")
    with monkeypatch.context() as patched:
        patched.setattr(ModelRegistry, "_set_aliases", lambda *_: None)
        promote(one, registry)
    assert read_aliases() == {}
    assert "the alias champion is on version none" in check_registry(registry)["problem"][0]
    with pytest.raises(BadInputError, match="is the champion already"):
        promote(one, registry)
    assert read_aliases() == {CHAMPION: "1"}
    assert registry.list_problems() == []


def test_a_number_of_another_package_is_not_taken_for_it(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    """TRAP: a renewed MLflow store gives the same numbers to other models."""
    promote(pack(tmp_path, "one"), registry)
    client = MlflowClient()
    client.delete_registered_model(NAME)
    assert "has no tiny_model" in check_registry(registry)["problem"][0]
    client.create_registered_model(NAME)
    client.create_model_version(NAME, "elsewhere")
    assert "version 1 of tiny_model" in check_registry(registry)["problem"][0]


def test_the_gate_is_of_the_model_that_gets_the_role(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    one, two = pack(tmp_path, "one"), pack(tmp_path, "two", card="# Another\n")
    gate = PASSED.assign(version=one.version, role=CHAMPION, champion="")
    with pytest.raises(BadInputError, match="passed with another version"):
        promote(two, registry, gate)
    with pytest.raises(BadInputError, match="passed with another role"):
        promote(one, registry, gate, role=CHALLENGER)
    promote(one, registry, gate)
    late = PASSED.assign(version=two.version, role=CHAMPION, champion="")
    with pytest.raises(BadInputError, match="passed with another champion"):
        promote(two, registry, late)


def test_a_champion_that_cannot_be_read_is_a_line_of_the_gate(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    one, two = pack(tmp_path, "one"), pack(tmp_path, "two", card="# Another\n")
    promote(one, registry)
    shutil.rmtree(ModelStore(tmp_path / "models").kept(one.version))
    gate = measure(two, registry).set_index("line")
    assert not gate.loc["champion", "passed"]
    assert "is not in" in gate.loc["champion", "finding"]
    promote(two, registry, measure(two, registry, not_worse_than_champion=False))
    assert registry.read_ledger().roles[CHAMPION] == two.version


def test_a_damaged_champion_does_not_answer(
    tracked: mlflow.ActiveRun, tmp_path: Path, registry: ModelRegistry
) -> None:
    package = pack(tmp_path, "one")
    promote(package, registry)
    classifier = ModelStore(tmp_path / "models").kept(package.version) / "classifier.onnx"
    classifier.write_bytes(classifier.read_bytes()[:-1] + b"x")
    with pytest.raises(BadInputError, match=r"classifier\.onnx is not the file"):
        report(check_registry(registry))


def test_one_run_at_a_time_gives_roles(
    tracked: mlflow.ActiveRun,
    tmp_path: Path,
    registry: ModelRegistry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("busi_pipeline.models.model_store._LOCK_SECONDS", 0.05)
    package = pack(tmp_path, "one")
    with (
        ModelStore(tmp_path / "models").lock(),
        pytest.raises(BadInputError, match="another run gives a model a role"),
    ):
        promote(package, registry)
    promote(package, registry)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-30", "2026-11-30T23:59:59.999999+00:00"),
        ("2026-11-30T12:00", "2026-11-30T12:00:00+00:00"),
        ("2026-11-30T12:00+01:00", "2026-11-30T12:00:00+01:00"),
    ],
)
def test_a_day_is_meant_to_its_end(text: str, expected: str) -> None:
    assert read_moment(text).isoformat() == expected


@pytest.mark.parametrize("text", ["yesterday", "30.11.2026", "2026-13-01"])
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(BadInputError, match="must be a day"):
        read_moment(text)
