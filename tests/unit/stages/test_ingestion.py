"""Ingestion: every file is in the manifest, paired as a mask, or in quarantine with a reason."""

import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from PIL import Image

from busi_pipeline.config.schemas import SiteSettings
from busi_pipeline.errors import BadInputError
from busi_pipeline.imaging.raw_files import RawFiles
from busi_pipeline.pipelines.ingestion import nodes
from busi_pipeline.pipelines.ingestion.nodes import (
    MANIFEST_COLUMNS,
    Ingestion,
    build_external_manifest,
    build_manifest,
)
from busi_pipeline.stats.classes import Classes
from tests.factories import (
    CLASSES,
    as_raw_images,
    encode_image,
    load_parameters,
    make_mask,
    make_png,
)
from tests.unit.layouts.folders import FOLDERS

PARAMETERS = load_parameters()
SITES = PARAMETERS["sites"] | {
    name: SiteSettings(folder=name) for name in ("north", "south", "benign")
}
FILES = {
    "benign/benign (2).png": make_png(2),
    "benign/benign (10).png": make_png(10),
    "benign/benign (10)_mask.png": make_mask(),
    "benign/benign (10)_mask_1.png": make_mask(),
    "malignant/malignant (1).png": make_png(30),
    "malignant/malignant (2).png": make_png(2),
    "normal/normal (1).jpg": make_png(50),
    "normal/normal (1)_mask.png": make_mask(),
    "normal/normal (2).png": make_png(60)[:50],
    "normal/normal (3).png": b"",
    "normal/normal (4).png": b"hello",
    "normal/normal (5).png": make_png(70, side=20),
    "normal/normal (6)_mask.png": make_mask(),
    "normal/notes.txt": b"hello",
    "cysts/cyst (1).png": make_png(80),
    "readme.png": make_png(90),
}


def ingest(
    files: dict[str, bytes] | RawFiles,
    classes: Classes = CLASSES,
    min_images_per_class: int = 1,
    **changes: Any,
) -> Ingestion:
    settings = PARAMETERS["ingestion"].updated(
        {"min_images_per_class": min_images_per_class, **changes}
    )
    raw = files if isinstance(files, RawFiles) else as_raw_images(files)
    return build_manifest(raw, settings, SITES, classes)


def refuse(files: dict[str, bytes], **changes: Any) -> str:
    """Return the one line that stops the run."""
    with pytest.raises(BadInputError) as caught:
        ingest(files, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_the_manifest_describes_every_usable_image() -> None:
    manifest = ingest(FILES).manifest
    assert list(manifest.columns) == MANIFEST_COLUMNS
    assert list(manifest["image_id"]) == [
        "benign/benign (2)",
        "benign/benign (10)",
        "malignant/malignant (1)",
        "malignant/malignant (2)",
        "normal/normal (1)",
    ]
    assert list(manifest["label"]) == ["benign"] * 2 + ["malignant"] * 2 + ["normal"]
    assert list(manifest["masks"]) == [0, 2, 0, 0, 1]
    assert set(manifest["height"]) == {40}
    assert set(manifest["width"]) == {45}
    assert not any("_mask" in path for path in manifest["path"])


def test_a_file_of_the_same_bytes_stays_and_is_marked() -> None:
    manifest = ingest(FILES).manifest
    duplicates = dict(zip(manifest["image_id"], manifest["byte_duplicate_of"], strict=True))
    assert duplicates.pop("malignant/malignant (2)") == "benign/benign (2)"
    assert set(duplicates.values()) == {""}


def test_quarantine_says_why_and_nothing_is_lost() -> None:
    result = ingest(FILES)
    reasons = dict(zip(result.quarantine["path"], result.quarantine["reason"], strict=True))
    for path, reason in {
        "normal/normal (2).png": "truncated",
        "normal/normal (3).png": "zero bytes",
        "normal/normal (4).png": "no image format",
        "normal/normal (5).png": "too small: 25 x 20 pixels, at least 32",
        "normal/normal (6)_mask.png": "mask without image",
        "normal/notes.txt": "not an image file",
        "cysts/cyst (1).png": "label 'cysts' is no class (benign, malignant, normal)",
        "readme.png": "not in a class folder",
    }.items():
        assert reason in reasons.pop(path)
    assert not reasons
    assert len(result.manifest) + len(result.quarantine) + result.summary["masks"] == len(FILES)


def test_the_log_names_some_files_in_quarantine_and_counts_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ingest(FILES)
    named = [record.message for record in caplog.records if "quarantine: " in record.message]
    assert len(named) == 8, "all, where there are few"
    caplog.clear()
    ingest(FILES | {f"cysts/cyst ({n}).png": make_png(80) for n in range(2, 40)})
    named = [record.message for record in caplog.records if "quarantine: " in record.message]
    assert len(named) == 9
    assert named[-1] == "quarantine: and 38 more, see quarantine.csv"


def test_counts_are_summarised() -> None:
    summary = ingest(FILES).summary
    assert summary["images"] == {"benign": 2, "malignant": 2, "normal": 1, "all": 5}
    assert summary["quarantined"] == 8
    assert summary["byte_duplicates"] == 1
    assert summary["masks"] == 3


def test_the_data_hash_follows_the_bytes() -> None:
    def digest(files: dict[str, bytes]) -> str:
        return ingest(files).tags["data_sha256"]

    before = digest(FILES)
    assert digest(dict(reversed(FILES.items()))) == before
    assert digest(FILES | {"benign/benign (2).png": make_png(3)}) != before
    assert digest(FILES | {"benign/benign (3).png": make_png(3)}) != before


@pytest.mark.parametrize(
    "names",
    [
        ["a (2)", "a (10)", "a (11)"],
        ["2", "10", "100"],
        ["p1_2", "p1_10", "p2_1", "p10_1"],
        ["scan-2", "scan-10"],
        ["a1.5", "a1.10"],
    ],
)
def test_the_order_is_as_a_person_counts(names: list[str]) -> None:
    files = {f"benign/{name}.png": make_png(n) for n, name in enumerate(reversed(names))}
    files |= {"malignant/m.png": make_png(90), "normal/n.png": make_png(91)}
    manifest = ingest(files).manifest
    assert list(manifest["image_id"])[:-2] == [f"benign/{name}" for name in names]


def test_the_same_name_with_two_suffixes_gives_two_ids() -> None:
    files = {"benign/a.png": make_png(1), "benign/a.bmp": make_png(2)}
    files |= {"malignant/b.png": make_png(3), "normal/c.png": make_png(4)}
    manifest = ingest(files).manifest
    assert manifest["image_id"].is_unique
    assert set(manifest["image_id"]) >= {"benign/a.png", "benign/a.bmp"}


def test_classes_are_the_users() -> None:
    classes = Classes(("None", "NA", "null", "suspicious: high"), ("suspicious: high",))
    files = {f"{name}/{name}.png": make_png(n) for n, name in enumerate(classes)}
    result = ingest(files | {"benign/b.png": make_png(9)}, classes)
    assert sorted(result.manifest["label"]) == sorted(classes)
    assert list(result.quarantine["path"]) == ["benign/b.png"]


def test_a_class_without_enough_images_is_named() -> None:
    message = refuse(FILES, min_images_per_class=2)
    assert "too few images of class normal" in message
    assert "'normal': 1" in message
    assert "Labels that are no class: cysts (1 images)" in message


def test_a_class_without_any_image_is_named() -> None:
    files = {"benign/b (1).png": make_png(1), "normal/n (1).png": make_png(2)}
    assert "too few images of class malignant" in refuse(files)


def test_a_folder_without_a_class_is_named() -> None:
    assert "It holds readme.txt. Expected is one of" in refuse({"readme.txt": b"hello"})


def test_the_users_groups_are_no_stray_file() -> None:
    table = b"image_id,group\nbenign/benign (2),p1\n"
    result = ingest(FILES | {"groups.csv": table})
    assert "groups.csv" not in set(result.quarantine["path"])
    assert result.manifest["patient"].tolist() == ["p1", "", "", "", ""]
    assert result.summary["patients"] == 1


def test_an_own_data_set_is_described_as_before() -> None:
    """Ids, order and hash of a folder of classes are pinned: published results rest on them."""
    result = ingest(FILES)
    manifest = result.manifest
    assert list(manifest.columns)[:11] == [
        *("image_id", "path", "label", "height", "width", "mode", "byte_sha256", "pixel_sha256"),
        *("masks", "colour_overlay", "byte_duplicate_of"),
    ]
    assert result.tags == {
        "data_sha256": "786c35fe2a1dedf1f768e737505c020818f773288e45c119acbb121df3cfe8ad"
    }
    assert set(manifest["site"]) == {"main"}
    assert manifest.loc[1, "path"] == "benign/benign (10).png"
    assert json.loads(manifest.loc[1, "mask_paths"]) == [
        "benign/benign (10)_mask.png",
        "benign/benign (10)_mask_1.png",
    ]
    empty = ["patient", "device", "birads", "age", "density", "histology", "view", "overlay", "box"]
    assert set(manifest[[*empty, "pixel_spacing_mm", "note"]].to_numpy().ravel()) == {""}


# Labels


def test_names_of_a_site_are_mapped_to_classes() -> None:
    names = {"Benigno": "benign", "MALIGN": "malignant", "sain": "normal"}
    files = {f"{label}/x.png": make_png(n) for n, label in enumerate(["benigno", "Malign", "SAIN"])}
    manifest = ingest(files | {"BENIGN/y.png": make_png(9)}, class_names=names).manifest
    assert dict(zip(manifest["path"], manifest["label"], strict=True)) == {
        "BENIGN/y.png": "benign",
        "Malign/x.png": "malignant",
        "SAIN/x.png": "normal",
        "benigno/x.png": "benign",
    }


def test_the_nearest_label_is_suggested() -> None:
    files = {f"{label}/x.png": make_png(n) for n, label in enumerate(["benign", "malign", "norma"])}
    message = refuse(files)
    assert "Did you mean ingestion.class_names: {malign: malignant, norma: normal}?" in message


def test_a_class_name_must_be_one_of_a_class() -> None:
    message = refuse(FILES, class_names={"cysts": "cyst"})
    assert "ingestion.class_names: cysts is to be 'cyst', which is no class" in message


def test_masks_of_images_without_a_class_are_in_quarantine() -> None:
    files = FILES | {"cysts/cyst (1)_mask.png": make_mask()}
    result = ingest(files)
    assert len(result.manifest) + len(result.quarantine) + result.summary["masks"] == len(files)
    assert "cysts/cyst (1)_mask.png" in set(result.quarantine["path"])


# Masks


def test_masks_are_known_by_what_they_are() -> None:
    """Whatever they are named, as JPEG files, in colour or of one value."""
    files = {
        "benign/benign (2)_seg.png": make_mask(),
        "benign/benign (2)_tumor.png": make_mask(colour=(255, 0, 0)),
        "malignant/malignant (1) roi.png": make_mask(np.s_[:0]),
        "malignant/malignant (2)_gt.jpg": encode_mask_as_jpeg(),
    }
    result = ingest(FILES | files)
    masks = dict(zip(result.manifest["image_id"], result.manifest["masks"], strict=True))
    assert masks["benign/benign (2)"] == 2
    assert masks["malignant/malignant (1)"] == masks["malignant/malignant (2)"] == 1
    assert result.summary["masks"] == 3 + 4
    assert result.tags == ingest(FILES).tags


def encode_mask_as_jpeg() -> bytes:
    return encode_image(Image.open(io.BytesIO(make_mask())), "JPEG", quality=75)


def test_a_two_valued_picture_is_never_an_image() -> None:
    files = {path: c for path, c in FILES.items() if path != "normal/normal (6)_mask.png"}
    result = ingest(files | {"benign/scan.png": make_mask()})
    reasons = dict(zip(result.quarantine["path"], result.quarantine["reason"], strict=True))
    assert reasons["benign/scan.png"] == "a two-valued picture, so a mask, and of no image"
    assert len(result.manifest) == len(ingest(FILES).manifest)


def test_many_masks_of_no_image_stop_the_run() -> None:
    stray = {f"benign/M{n}.png": make_mask() for n in range(2)}
    message = refuse(FILES | stray)
    assert "3 of 17 pictures are masks of no image (benign/M0.png, for one)" in message
    assert "x_mask.png" in message


def test_a_drawing_stops_the_run_unless_it_is_an_image() -> None:
    files = FILES | {"benign/benign (2)_overlay.png": make_png(5)}
    message = refuse(files)
    assert "benign/benign (2)_overlay.png may be a drawing on benign/benign (2).png" in message
    assert len(ingest(files, extended_names="image").manifest) == 6


# What is known of images


def test_a_table_fills_the_manifest() -> None:
    folder = FOLDERS["table"]()
    result = ingest(folder.files, Classes(("benign", "malignant"), ("malignant",)))
    row = result.manifest.iloc[0].to_dict()
    assert {name: row[name] for name in folder.attributes} == folder.attributes
    assert row["image_id"] == "scans/a"
    assert row["patient"] == "007"
    assert row["box"] == "1 2 3 4"
    assert json.loads(row["mask_paths"]) == ["scans/a_1.png", "scans/a_2.png"]
    assert row["masks"] == 2
    assert result.manifest.iloc[1]["box"] == ""


def test_a_table_goes_before_the_header_of_a_dicom_file() -> None:
    table = b"image,label,patient,age\na.dcm,benign,p1,\nb.dcm,malignant,NA,50\n"
    headers = {
        "patient": "of header",
        "age": "40",
        "device": "GE",
        "view": "left",
        "pixel_spacing_mm": "0.1",
        "frame": "3",
    }
    files = {"images.csv": table, "a_3.png": make_png(1), "b_3.png": make_png(2)}
    raw = RawFiles(
        as_raw_images(files),
        unusable={"c.dcm": "no pixels"},
        attributes={"a_3.png": headers, "b_3.png": headers},
        originals={"a_3.png": "a.dcm", "b_3.png": "b.dcm"},
    )
    result = ingest(raw, Classes(("benign", "malignant"), ("malignant",)))
    manifest = result.manifest
    assert manifest["patient"].tolist() == ["p1", "of header"]
    assert manifest["age"].tolist() == ["40", "50"]
    assert manifest["device"].tolist() == ["GE", "GE"]
    assert manifest["pixel_spacing_mm"].tolist() == ["0.1", "0.1"]
    assert result.quarantine.to_numpy().tolist() == [["c.dcm", "no pixels"]]


def test_notes_of_the_decoder_are_kept_and_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    decode = nodes.decode_image
    monkeypatch.setattr(
        nodes, "decode_image", lambda *args, **kw: decode(*args, **kw)._replace(note="turned")
    )
    assert set(ingest(FILES).manifest["note"]) == {"turned"}
    assert (
        "5 images have a note in the manifest, such as benign/benign (2).png: turned" in caplog.text
    )


def test_an_image_of_too_many_pixels_is_not_decoded() -> None:
    quarantine = ingest(
        FILES | {"benign/b.png": make_png(5, side=60)}, max_pixels=60 * 60
    ).quarantine
    reasons = dict(zip(quarantine["path"], quarantine["reason"], strict=True))
    assert "ingestion.max_pixels" in reasons["benign/b.png"]


def test_folders_around_the_images_are_no_part_of_ids() -> None:
    files = {f"BUSI/BUSI/{path}": content for path, content in FILES.items()}
    result = ingest(files | {"licence.txt": b"free"})
    assert result.tags == ingest(FILES).tags
    assert result.manifest.loc[1, "path"] == "BUSI/BUSI/benign/benign (10).png"
    assert json.loads(result.manifest.loc[4, "mask_paths"]) == [
        "BUSI/BUSI/normal/normal (1)_mask.png"
    ]
    reasons = dict(zip(result.quarantine["path"], result.quarantine["reason"], strict=True))
    assert reasons["licence.txt"] == "not within BUSI/BUSI/, where the images lie"
    assert len(result.manifest) + len(result.quarantine) + result.summary["masks"] == len(files) + 1


@pytest.mark.parametrize("name", ["a b", "a#1", "50%", "%41", "é", "e\u0301", "乳腺", "1²3"])
def test_odd_names_are_read(name: str) -> None:
    files = {f"{label}/{name}.PNG": make_png(n) for n, label in enumerate(CLASSES)}
    assert list(ingest(files).manifest["image_id"]) == [f"{label}/{name}" for label in CLASSES]


# Sites


def join_sites(**folders: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{site}/{p}": c for site, files in folders.items() for p, c in files.items()}


def test_sites_are_read_each_in_its_layout() -> None:
    raw = join_sites(north=FOLDERS["class_folders"]().files, south=FOLDERS["bus_bra"]().files)
    classes = Classes(("benign", "malignant"), ("malignant",))
    result = ingest(raw, classes, sites=["north", "south"])
    manifest = result.manifest
    assert manifest["image_id"].tolist() == [
        "north/Malignant/m 1",
        "north/benign/b (1)",
        "north/benign/b (10)",
        "south/Images/bus_0001-l",
        "south/Images/bus_0001-r",
    ]
    assert manifest["site"].tolist() == ["north"] * 3 + ["south"] * 2
    assert manifest["patient"].tolist() == ["north:p2", "north:p1", "", "south:1", "south:1"]
    assert json.loads(manifest.loc[3, "mask_paths"]) == ["south/Masks/mask_0001-l.png"]
    assert set(raw) >= set(manifest["path"]) | {"south/Masks/mask_0001-l.png"}
    assert result.summary["images"] == {
        "north": 3,
        "south": 2,
        "benign": 3,
        "malignant": 2,
        "all": 5,
    }


def test_an_error_in_a_table_names_the_site() -> None:
    south = FOLDERS["bus_bra"]().files | {"bus_data.csv": b""}
    raw = join_sites(north=FOLDERS["class_folders"]().files, south=south)
    assert "site south: bus_data.csv is empty" in refuse(raw, sites=["north", "south"])


def test_a_table_may_name_the_site() -> None:
    table = b"image,label,site,patient\na.png,benign,A,1\nb.png,malignant,,1\n"
    files = {"images.csv": table, "a.png": make_png(1), "b.png": make_png(2)}
    result = ingest(files, Classes(("benign", "malignant"), ("malignant",)))
    assert result.manifest["site"].tolist() == ["A", "main"]
    assert result.manifest["patient"].tolist() == ["1", "1"], "one table, one numbering"
    assert result.summary["images"] == {"A": 1, "main": 1, "benign": 1, "malignant": 1, "all": 2}


def test_the_layout_can_be_named() -> None:
    table = FILES | {"images.csv": b"image,label\nbenign/benign (2).png,benign\n"}
    assert "too few images of class malignant" in refuse(table)
    assert len(ingest(table, layout="class_folders").manifest) == 5
    assert "bus_bra: bus_data.csv beside" in refuse(FILES, layout="bus_bra")


# The external site


def ingest_external(files: dict[str, bytes], **external: Any) -> Ingestion:
    changes = {"folder": "/data/Clinic 2"} | external
    return build_external_manifest(
        as_raw_images(files),
        PARAMETERS["ingestion"].updated({"layout": "class_folders"}),
        PARAMETERS["external"].updated(changes),
        SITES,
        CLASSES,
    )


def test_an_external_site_need_not_have_every_class() -> None:
    result = ingest_external(FOLDERS["bus_bra"]().files)
    assert result.manifest["image_id"].tolist() == ["Images/bus_0001-l", "Images/bus_0001-r"]
    assert set(result.manifest["site"]) == {"clinic_2"}
    assert result.manifest["patient"].tolist() == ["1", "1"]
    assert result.summary["images"] == {"benign": 1, "malignant": 1, "normal": 0, "all": 2}


def test_an_external_site_needs_one_image_of_a_class() -> None:
    table = b"image,label\na.png,malign\n"
    with pytest.raises(BadInputError) as caught:
        ingest_external({"images.csv": table, "a.png": make_png(1)})
    message = str(caught.value)
    assert "the external site clinic_2 has no usable image of the classes benign" in message
    assert "Did you mean ingestion.class_names: {malign: malignant}?" in message
    assert "\n" not in message


def test_an_external_site_must_be_named() -> None:
    with pytest.raises(BadInputError, match=r"set external.site .* or external.folder"):
        ingest_external(FILES, folder=None)


# DICOM files


@pytest.mark.parametrize("sites", [["main"], ["north", "south"]])
def test_frames_of_a_wrapped_folder_are_found(sites: list[str]) -> None:
    """The key of a frame has none of the folders that are no classes."""
    starts = [f"{site}/" for site in sites] if len(sites) > 1 else [""]
    files, originals = {}, {}
    for number, start in enumerate(starts):
        table = b"image,label\nscans/Doe.dcm,benign\nscans/b.png,malignant\n"
        files |= {
            f"{start}zip/images.csv": table,
            f"{start}zip/scans/b.png": make_png(10 + number),
            f"{start}4f.png": make_png(20 + number),
        }
        originals[f"{start}4f.png"] = f"{start}zip/scans/Doe.dcm"
    raw = RawFiles(as_raw_images(files), originals=originals)
    result = ingest(raw, Classes(("benign", "malignant"), ("malignant",)), sites=sites)
    paths = [name for start in starts for name in (f"{start}4f.png", f"{start}zip/scans/b.png")]
    assert result.manifest["path"].tolist() == paths
    ids = [name for start in starts for name in (f"{start}4f", f"{start}scans/b")]
    assert result.manifest["image_id"].tolist() == ids
    assert result.quarantine.empty
    assert "Doe" not in result.manifest.to_csv()


def test_frames_are_found_in_class_folders_wherever_they_lie() -> None:
    files = {f"{label}/4f_{n}.png": make_png(n) for n, label in enumerate(CLASSES)}
    deep = {path: f"2024/{path.split('/')[0]}/Doe/1.dcm" for path in files}
    raw = RawFiles(as_raw_images(files), originals=deep)
    assert len(ingest(raw).manifest) == 3
    years = {path: f"{2020 + n}/{deep[path]}" for n, path in enumerate(files)}
    assert len(ingest(RawFiles(as_raw_images(files), originals=years)).manifest) == 3


CONTENTS = {
    "image": make_png(7),
    "copy": make_png(2),
    "mask": make_mask(),
    "cut": make_png(8)[:50],
    "empty": b"",
    "text": b"hello",
}
ANY_FILES = st.dictionaries(
    st.builds(
        "{}/{}{}.{}".format,
        st.sampled_from([*CLASSES.names, "cysts", "benign/deeper"]),
        st.text("ab1 ().-_é日", min_size=1, max_size=6).filter(lambda stem: stem.strip(". ")),
        st.sampled_from(["", "_mask", "_mask_1"]),
        st.sampled_from(["png", "PNG", "bmp", "txt"]),
    ),
    st.sampled_from(sorted(CONTENTS)),
    max_size=8,
)
# Enough that some masks of no image are no reason to refuse all.
OF_EACH_CLASS = {f"{name}/x{n}.png": make_png(40 + n) for name in CLASSES for n in range(20)}


@settings(max_examples=30, deadline=None)
@given(ANY_FILES)
def test_whatever_a_folder_holds_every_file_is_in_one_place(kinds: dict[str, str]) -> None:
    files = {path: CONTENTS[kind] for path, kind in kinds.items()} | OF_EACH_CLASS
    try:
        result = ingest(files)
    except BadInputError:  # too many masks of no image
        reject()
    manifest, quarantine = result.manifest, result.quarantine
    masks = [path for paths in manifest["mask_paths"] for path in json.loads(paths or "[]")]
    places = [*manifest["path"], *quarantine["path"], *masks]
    assert sorted(places) == sorted(files), "each once"
    assert manifest["image_id"].is_unique
    assert list(manifest["label"]) == [path.split("/")[0] for path in manifest["path"]]
    assert quarantine["reason"].str.len().min() > 0 or quarantine.empty
    again = ingest(dict(reversed(files.items())))
    assert again.tags == result.tags
    assert list(again.manifest["image_id"]) == list(manifest["image_id"])
