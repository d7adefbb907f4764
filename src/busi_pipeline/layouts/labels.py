"""Labels as sites write them, and the classes that they are."""

import unicodedata
from collections.abc import Collection, Mapping


def normalise_label(label: str) -> str:
    """Return the label as it is compared: without blanks around it, in lower case, composed."""
    return unicodedata.normalize("NFC", label.strip()).casefold()


def match_label(label: str, classes: Collection[str], class_names: Mapping[str, str]) -> str | None:
    """Return the class of a label; None where it is no class.

    Args:
        label: as a site writes it.
        classes: their names.
        class_names: {label: class}; it goes before the names of the classes.
    """
    if label in class_names or label in classes:
        return class_names.get(label, label)
    known = {normalise_label(name): name for name in classes}
    known |= {normalise_label(name): found for name, found in class_names.items()}
    return known.get(normalise_label(label))
