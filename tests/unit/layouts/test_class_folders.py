"""Class folders: masks by name and by what they are, drawings refused, patients of groups.csv."""

import pytest

from busi_pipeline.errors import BadInputError
from busi_pipeline.layouts import LAYOUTS, ListedImage, Listing
from busi_pipeline.layouts.base import MASK_WITHOUT_IMAGE, TWO_VALUED
from busi_pipeline.layouts.class_folders import ClassFolders

from .folders import LABELS, as_raw_files


def read(*paths: str, groups: bytes | None = None) -> Listing:
    files = dict.fromkeys(paths, b"") | ({} if groups is None else {"groups.csv": groups})
    return ClassFolders.read(as_raw_files(files), LABELS)


def separate(*paths: str, masks: tuple[str, ...], stop: bool = True) -> Listing:
    """Return what is made of these pictures when `masks` are two-valued."""
    listed = [ListedImage(path, "benign") for path in (*paths, *masks)]
    return ClassFolders.separate_masks(listed, set(masks), stop)


# By name


@pytest.mark.parametrize(
    "mask",
    [
        "x_mask.png",
        "X_MASK.PNG",
        "x-mask.png",
        "x mask.bmp",
        "x_mask_1.png",
        "x_mask1.png",
        "x_mask (2).png",
        "x_mask - Copy.png",
        "x_masks.png",
        "mask_x.png",
        "Mask-x.png",
        "masks/x.png",
        "mask/x.jpg",
        "Masks/x_mask.png",
        "segmentations/X.png",
        "annotations/x.png",
    ],
)
def test_a_mask_is_known_by_its_name(mask: str) -> None:
    images, unused = read("benign/x.png", f"benign/{mask}")
    assert [(image.path, image.masks) for image in images] == [
        ("benign/x.png", (f"benign/{mask}",))
    ]
    assert unused == []


@pytest.mark.parametrize("name", ["unmasked", "x_mask_left", "masked_x", "_mask", "maskx"])
def test_other_names_are_no_masks(name: str) -> None:
    images, _ = read("benign/x.png", f"benign/{name}.png")
    assert len(images) == 2


def test_images_and_masks_in_folders_of_their_own_are_paired() -> None:
    images, unused = read("benign/images/x.png", "benign/masks/x.png", "malignant/images/x.png")
    assert [image.masks for image in images] == [("benign/masks/x.png",), ()]
    assert unused == []


def test_a_mask_whose_image_is_missing_is_unused() -> None:
    images, unused = read("benign/x.png", "benign/y_mask.png", "malignant/x_mask.png")
    assert images[0].masks == ()
    assert unused == [
        (p, MASK_WITHOUT_IMAGE) for p in ("benign/y_mask.png", "malignant/x_mask.png")
    ]


def test_two_files_of_one_name_share_their_masks() -> None:
    images, _ = read("benign/x.png", "benign/x.bmp", "benign/x_mask.png")
    assert [image.masks for image in images] == [("benign/x_mask.png",)] * 2


def test_composed_and_decomposed_names_are_one() -> None:
    images, _ = read("benign/a\u0308.png", "benign/\u00e4_mask.png")
    assert len(images[0].masks) == 1
    decomposed = ["ma\u0308nnlich/x.png"]
    assert ClassFolders.recognises(decomposed, ["M\u00e4nnlich"])


# By pixels


@pytest.mark.parametrize(
    "mask",
    [
        "x_segmentation",
        "x_seg",
        "x_GT",
        "x_tumor",
        "x (2)",
        "x_1",
        "roi_x",
        "x - lesion",
        "lesion.x",
    ],
)
def test_a_two_valued_picture_is_the_mask_of_the_name_it_extends(mask: str) -> None:
    path = f"benign/{mask}.png"
    images, unused = separate("benign/X.png", "benign/y.png", masks=(path,))
    assert [image.masks for image in images] == [(path,), ()]
    assert unused == []


def test_a_two_valued_picture_of_the_same_name_is_a_mask() -> None:
    assert separate("benign/x.jpg", masks=("benign/x.png",)).images[0].masks == ("benign/x.png",)


def test_the_longest_name_owns_the_mask() -> None:
    images, _ = separate("b/scan_1.png", "b/scan_1_2.png", masks=("b/scan_1_2_roi.png",))
    assert [len(image.masks) for image in images] == [0, 1]


@pytest.mark.parametrize(
    "mask", ["b/scan.png", "b/scan_12.png", "b/1scan_1.png", "c/scan_1_roi.png", "b/x y.png"]
)
def test_a_two_valued_picture_of_no_image_is_unused(mask: str) -> None:
    images, unused = separate("b/scan_1.png", "b/x.png", "b/y.png", masks=(mask,))
    assert not any(image.masks for image in images)
    assert unused == [(mask, TWO_VALUED)]


def test_masks_by_name_and_by_pixels_are_joined() -> None:
    listed = [
        ListedImage("b/x.png", "benign", masks=("b/x_mask.png",)),
        ListedImage("b/x_roi.png", "benign"),
    ]
    images, _ = ClassFolders.separate_masks(listed, {"b/x_roi.png"}, stop=True)
    assert images[0].masks == ("b/x_mask.png", "b/x_roi.png")


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "class_folders"])
def test_a_listed_picture_that_is_a_mask_is_unused(name: str) -> None:
    listed = [ListedImage("x.png", "benign"), ListedImage("x_roi.png", "benign")]
    images, unused = LAYOUTS[name].separate_masks(listed, {"x_roi.png"}, stop=True)
    assert images == listed[:1]
    assert unused == [("x_roi.png", TWO_VALUED)]


# Drawings


@pytest.mark.parametrize(
    "extension", ["_overlay", "-left", " marked", ".old", "_2b", " (annotated)"]
)
def test_a_picture_that_extends_another_ones_name_stops_the_run(extension: str) -> None:
    drawing = f"benign/scan_1{extension}.png"
    with pytest.raises(BadInputError) as caught:
        separate("benign/scan_1.png", "benign/scan_2.png", drawing, masks=())
    message = str(caught.value)
    assert f"{drawing} may be a drawing on benign/scan_1.png" in message
    assert "ingestion.extended_names: image" in message
    assert "\n" not in message
    images, _ = separate("benign/scan_1.png", drawing, masks=(), stop=False)
    assert len(images) == 2


@pytest.mark.parametrize(
    ("name", "longer"),
    [
        ("benign", "benign (1)"),
        ("benign (1)", "benign (10)"),
        ("scan_1", "scan_1_2"),
        ("scan", "scan - Copy"),
        ("1.2", "1.2.840"),
        ("p1", "p1 2020-01-02"),
        ("1", "1²3"),
        ("scan", "scanner"),
        ("a", "b a"),
    ],
)
def test_a_numbering_is_no_drawing(name: str, longer: str) -> None:
    images, _ = separate(f"benign/{name}.png", f"benign/{longer}.png", masks=())
    assert len(images) == 2
    separate("benign/x.png", "malignant/x_left.png", masks=())


# Folders and files


def test_class_folders_may_be_written_in_any_case() -> None:
    images, unused = read("BENIGN/a.png", "Malignant/b.JPG", "cysts/c.png", "d.png", "benign/n.txt")
    assert [image.label for image in images] == ["BENIGN", "Malignant", "cysts"]
    assert [path for path, _ in unused] == ["d.png", "benign/n.txt"]
    assert "not in a class folder; class folders: ['benign'" in unused[0][1]
    assert not ClassFolders.recognises(["malign/a.png", "benign.png"], LABELS)
    assert ClassFolders.recognises(["malign/a.png"], [*LABELS, "malign"])


@pytest.mark.parametrize(
    "name", ["a b", "a#1", "50%", "%41", "é", "乳腺", "1²3", "a'b", "=1+1", "a,b"]
)
def test_names_may_be_any(name: str) -> None:
    image, mask = f"benign/{name}.png", f"benign/{name}_mask.png"
    images, unused = read(image, mask)
    assert [(i.path, i.masks) for i in images] == [(image, (mask,))]
    assert unused == []


# groups.csv


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    "table",
    [
        "image_id,group\nbenign/ä 1,p1\nBenign/b,p1\n",
        "Path;Group\nbenign/ä 1.png;p1\nbenign\\b.PNG;p1\n",
        "image_id\tgroup\tmore\nbenign/ä 1\tp1\t\nbenign/b\tp1\t\nbenign/b\tp1\t\n",
    ],
)
def test_groups_name_patients(table: str, encoding: str) -> None:
    images, unused = read(
        "benign/ä 1.png", "benign/b.png", "benign/c.png", groups=table.encode(encoding)
    )
    assert [image.patient for image in images] == ["p1", "p1", ""]
    assert unused == []


@pytest.mark.parametrize("patient", ["", "NA", "None", "null", "-", "n/a"])
def test_a_patient_that_is_not_known_is_none(patient: str) -> None:
    table = f"image_id,group\nbenign/a,{patient}\nbenign/b,{patient}\n".encode()
    assert [i.patient for i in read("benign/a.png", "benign/b.png", groups=table).images] == [
        "",
        "",
    ]


def test_a_name_in_groups_that_is_not_there_is_unused() -> None:
    table = b"image_id,group\nbenign/a,p1\nbenign/z,p2\n"
    images, unused = read("benign/a.png", groups=table)
    assert images[0].patient == "p1"
    assert unused == [("benign/z", "listed in groups.csv, but not there")]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (b"", "groups.csv is empty"),
        ("image_id,group\nbenign/a,ä\n".encode("latin-1"), "groups.csv is not UTF-8"),
        (b"image_id,patient\nbenign/a,p\n", "groups.csv lacks the columns group; it has image_id"),
        (
            b"image,group\nbenign/a,p\n",
            r"image_id \(or path\) must hold names such as 'benign/a.png'",
        ),
        (b"image_id,group\na,p\n", r"names no file that is there \('a', for one\)"),
        (b"image_id,group\nbenign/a,p\nbenign/a.png,q\n", "puts benign/a.png into two groups"),
    ],
)
def test_wrong_groups_are_named_in_one_line(table: bytes, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        read("benign/a.png", groups=table)
    assert "\n" not in str(caught.value)
