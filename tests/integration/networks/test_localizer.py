"""The localizer: learns from masks, finds lesions it has not seen, and never looks at its teacher.

Synthetic scans, a small VGG16 of random weights.
"""

import json
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from busi_pipeline.caching.arrays import StoredArray
from busi_pipeline.caching.cache import Cache
from busi_pipeline.config.experiments import name_item
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.affine import FLIPPED, ORIGINAL
from busi_pipeline.imaging.crops import Window
from busi_pipeline.learning import localization
from busi_pipeline.learning.localization import (
    BOX_COLUMNS,
    OUT_OF_FOLD,
    UNKNOWN,
    UNSEEN,
    Localized,
    build_localizer,
    extract_pyramid,
    locate_lesions,
    locate_with,
    prepare_views,
)
from busi_pipeline.models.localizer import STRIDE, build_decoder, find_lesion, locate_lesion
from busi_pipeline.models.weights import PretrainedWeights
from busi_pipeline.pipelines.localization.nodes import locate_folds
from busi_pipeline.synthetic import simulate_scan
from tests.evaluation_factories import EVALUATION
from tests.factories import RawFiles, as_raw_images, encode_image, load_parameters
from tests.integration.networks.test_delivered import make_delivered

BACKBONES = ["vgg16", "resnet50"]
SETTINGS = load_parameters()["localization"].updated(
    {
        "backbones": BACKBONES,
        "weights": "none",
        "image_size": 64,
        "channels": 16,
        "per_image": 2,
        "width": 32,
        "epochs": 15,
        "batch_size": 8,
        "folds": 2,
    }
)
NOTHING = PretrainedWeights(None, {"weights_sha256": "none"})
WEIGHTS = dict.fromkeys(BACKBONES, NOTHING)
LEARNED = 24


class Scans:
    """Thirty scans with a lesion, six without, one of which nobody said anything."""

    def __init__(self, cache: Cache):
        self.cache = cache
        files, rows = {}, []
        for number in range(37):
            label = "normal" if 30 <= number < 36 else ("benign", "malignant")[number % 2]
            scan = simulate_scan(label, 120, 160, np.random.default_rng(number))
            files[f"{number}.png"] = encode_image(Image.fromarray(scan.image))
            files[f"{number}_mask.png"] = encode_image(Image.fromarray(scan.mask))
            rows.append(
                {
                    "image_id": str(number),
                    "path": f"{number}.png",
                    "label": label,
                    "group": f"g{number // 2}",
                    "height": 120,
                    "width": 160,
                    "byte_sha256": str(number),
                    "box": "",
                    "mask_paths": json.dumps([] if number == 36 else [f"{number}_mask.png"]),
                    "is_learned": number < LEARNED or 30 <= number < 34,
                }
            )
        self.raw: RawFiles = as_raw_images(files)
        self.manifest = pd.DataFrame(rows)

    def prepare(self) -> StoredArray:
        return prepare_views(self.raw, self.manifest, SETTINGS, SETTINGS.per_image, self.cache)

    def extract(self, views: StoredArray) -> dict[str, StoredArray]:
        return {
            name: extract_pyramid(views, name, SETTINGS, NOTHING, self.cache) for name in BACKBONES
        }

    def locate(self) -> Localized:
        views = self.prepare()
        return locate_lesions(views, self.extract(views), self.manifest, SETTINGS, self.cache)


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Scans:
    return Scans(Cache(tmp_path_factory.mktemp("localizer")))


@pytest.fixture(scope="module")
def views(scans: Scans) -> StoredArray:
    return scans.prepare()


@pytest.fixture(scope="module")
def located(scans: Scans) -> Localized:
    return scans.locate()


def test_views_are_of_images_and_of_other_scanners(views: StoredArray) -> None:
    numbers = views.index.groupby("image_id")["augmentation"].agg(list)
    assert numbers["0"] == [ORIGINAL, FLIPPED, 1, 2]
    assert numbers["36"] == [ORIGINAL, FLIPPED], "nobody said where the lesion is"
    first = np.asarray(views.values[0])
    assert first.shape == (64, 64, 2)
    np.testing.assert_array_equal(np.asarray(views.values[1]), first[:, ::-1])
    assert set(np.unique(first[..., 1])) == {0, 255}
    unknown = np.asarray(views.values[int(np.flatnonzero(views.index["image_id"] == "36")[0])])
    assert (unknown[..., 1] == UNKNOWN).all()


def test_lesions_are_found_where_they_were_not_learned(located: Localized) -> None:
    boxes = located.boxes.set_index("image_id")
    assert (boxes["source"] == OUT_OF_FOLD).sum() == LEARNED + 4
    lesions = boxes[boxes["is_drawn"] == True]  # noqa: E712
    assert len(lesions) == 30
    for _, part in lesions.groupby("source"):
        assert part["centre_hit"].mean() > 0.8
        assert part["iou"].mean() > 0.4
    assert boxes.loc["30", "is_drawn"] is False
    assert pd.isna(boxes.loc["36", "is_drawn"])


def test_no_decoder_finds_what_its_group_taught_it(
    scans: Scans, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: list[set[str]] = []
    asked: list[set[str]] = []
    views = scans.prepare()
    features = scans.extract(views)
    group_of = scans.manifest.set_index("image_id")["group"]

    def get(_views: Any, _features: Any, rows: np.ndarray, *_: Any) -> list[np.ndarray]:
        taught.append(set(group_of[views.index["image_id"].iloc[rows]]))
        return []

    def predict(_decoder: Any, _features: Any, image_ids: pd.Series) -> np.ndarray:
        asked.append(set(group_of[image_ids]))
        return np.full((len(image_ids), 16, 16, 2), 0.5, np.float32)

    monkeypatch.setattr(localization, "_get_decoder", get)
    monkeypatch.setattr(localization, "load_decoder", lambda *_: None)
    monkeypatch.setattr(localization, "_predict_maps", predict)
    locate_lesions(views, features, scans.manifest, SETTINGS, scans.cache)
    assert len(taught) == 4, "of each fold, a decoder for each backbone"
    assert len(asked) == 8, "of each decoder: its own fold, and what is not learned from"
    for number, groups in enumerate(asked):
        assert groups
        assert not groups & taught[number // 2]


def test_the_localizer_finds_the_same_as_its_decoders(
    scans: Scans, views: StoredArray, located: Localized
) -> None:
    localizer = build_localizer(SETTINGS, WEIGHTS, located.decoders)
    unseen = scans.manifest[~scans.manifest["is_learned"]]
    boxes = locate_with(localizer, views, unseen, scans.cache).reset_index(drop=True)
    assert list(boxes) == BOX_COLUMNS
    expected = located.boxes[located.boxes["source"] == UNSEEN].reset_index(drop=True)
    edges = list(Window._fields)
    assert np.abs(boxes[edges].to_numpy() - expected[edges].to_numpy()).max() < 11
    np.testing.assert_allclose(boxes["confidence"], expected["confidence"], atol=0.02)
    pixels = simulate_scan("malignant", 120, 160, np.random.default_rng(25)).image
    box, confidence = locate_lesion(
        localizer.predict_on_batch, SETTINGS.image_size, np.repeat(pixels[..., None], 3, axis=2)
    )
    own = boxes.set_index("image_id").loc["25"]
    assert confidence == pytest.approx(own["confidence"], abs=1e-3)
    np.testing.assert_allclose(box, own[edges].astype(float), atol=0.06)


def test_located_lesions_are_taken_from_the_cache_of_their_localizer(
    scans: Scans, views: StoredArray, located: Localized, monkeypatch: pytest.MonkeyPatch
) -> None:
    localizer = build_localizer(SETTINGS, WEIGHTS, located.decoders)
    unseen = scans.manifest[~scans.manifest["is_learned"]]
    first = locate_with(localizer, views, unseen, scans.cache)
    predicted: list[int] = []

    def predict(self: keras.Model, batch: np.ndarray) -> np.ndarray:
        predicted.append(len(batch))
        return np.full((len(batch), 16, 16, 2), 0.5, np.float32)

    monkeypatch.setattr(keras.Model, "predict_on_batch", predict)
    again = locate_with(localizer, views, unseen, scans.cache)
    assert again.to_csv() == first.to_csv()
    assert not predicted
    first_alone = {name: decoders[:1] for name, decoders in located.decoders.items()}
    other = build_localizer(SETTINGS, WEIGHTS, first_alone)
    assert len(locate_with(other, views, unseen, scans.cache)) == len(unseen)
    assert sum(predicted) == len(unseen)


class NoWeights:
    def choose(self, *_: Any) -> PretrainedWeights:
        return NOTHING


def test_images_that_folds_leave_out_get_a_box_and_no_say(
    scans: Scans, views: StoredArray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those whose duplicates have another label: they are shown, and nothing is learned."""
    left_out = ["3", "31"]
    is_kept = scans.manifest["is_learned"] & ~scans.manifest["image_id"].isin(left_out)
    folds = scans.manifest.loc[is_kept, ["image_id", "label", "group"]].sample(
        frac=1, random_state=1
    )
    taught: set[str] = set()

    def get(_views: Any, _features: Any, rows: np.ndarray, *_: Any) -> list[np.ndarray]:
        taught.update(views.index["image_id"].iloc[rows])
        return build_decoder(64, 16, 32, 0.1).get_weights()

    monkeypatch.setattr(localization, "_get_decoder", get)
    evaluation = EVALUATION.updated({"n_resamples": 20})
    located = locate_folds(
        views,
        scans.manifest.drop(columns=["label", "group", "is_learned"]),
        folds,
        SETTINGS,
        evaluation,
        NoWeights(),  # type: ignore[arg-type]
        scans.cache,
        **{name_item(name, "features"): own for name, own in scans.extract(views).items()},
    )
    boxes = located.lesion_boxes.set_index("image_id")
    assert list(boxes.index) == list(scans.manifest["image_id"]), "every image that is prepared"
    assert set(boxes.index[boxes["source"] == OUT_OF_FOLD]) == set(folds["image_id"])
    assert taught <= set(folds["image_id"])
    assert (
        located.metrics["localizer"]["out_of_fold"]["images"] == (folds["label"] != "normal").sum()
    )
    assert located.localizer.input_shape == (None, 64, 64)


def test_fitted_decoders_are_taken_from_the_cache(
    scans: Scans, located: Localized, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(localization, "_fit_decoder", refuse)
    pd.testing.assert_frame_equal(scans.locate().boxes, located.boxes)


def test_too_few_masks_are_refused_in_one_line(scans: Scans, views: StoredArray) -> None:
    without = scans.manifest.assign(is_learned=scans.manifest["label"] == "normal")
    with pytest.raises(BadInputError, match="only 0 of 6 images that are learned from") as caught:
        locate_lesions(views, scans.extract(views), without, SETTINGS, scans.cache)
    assert "\n" not in str(caught.value)


def test_of_several_the_likeliest_lesion_is_found() -> None:
    maps = np.zeros((16, 16, 2), np.float32)
    maps[2:4, 2:4, 0] = 0.9
    maps[8:14, 6:10, 0] = 0.7
    maps[0, 0, 1] = 0.6
    found = find_lesion(maps)
    expected = Window(6 * STRIDE, 8 * STRIDE, 10 * STRIDE, 14 * STRIDE)
    assert found.box == pytest.approx(expected, abs=1), "edges lie between pixels of the map"
    assert found.mask.shape == (64, 64)
    assert found.confidence == pytest.approx(0.6)
    faint = find_lesion(0.1 * maps)
    assert faint.box == found.box, "there is a likeliest place whatever the confidence"


def test_a_sure_lesion_comes_before_a_larger_one_that_is_not() -> None:
    maps = np.zeros((16, 16, 2), np.float32)
    maps[2:6, 2:6, 0] = 1.0
    maps[8:14, 6:11, 0] = 0.6  # 30 pixels, 18 in all, against 16
    assert find_lesion(maps).box.bottom < 7 * STRIDE


def make_pointing_localizer() -> keras.Model:
    """A localizer of 32 pixels: the lesion is where the image is bright."""
    grey = keras.Input((32, 32), dtype="uint8")
    bright = keras.ops.cast(grey, "float32")[..., None] / 255
    small = keras.layers.AveragePooling2D(4)(bright)
    return keras.Model(grey, keras.layers.Concatenate()([small, 0.5 * small]))


def test_a_delivered_model_looks_at_the_lesion_that_it_finds() -> None:
    pixels = np.full((64, 64, 3), 10, dtype=np.uint8)
    pixels[8:24, 40:56] = 250
    plain = make_delivered()
    view = {"view": "lesion", "keep_aspect": True, "margin": 0.0}
    looking = plain._replace(
        localizer=make_pointing_localizer(), description=plain.description | {"input": view}
    )
    found = looking.predict_pixels(pixels)
    assert found.box == pytest.approx((40, 8, 56, 24), abs=2)
    assert found.confidence == pytest.approx(0.47, abs=0.01)
    assert found.probabilities["malignant"] > 0.9, "the lesion is bright, the image is not"
    assert plain.predict_pixels(pixels).probabilities["malignant"] < 0.5
    by_reader = looking.predict_pixels(pixels, Window(0, 40, 16, 56))
    assert by_reader.box == Window(0, 40, 16, 56)
    assert by_reader.confidence is None
    assert by_reader.probabilities["malignant"] < 0.5
