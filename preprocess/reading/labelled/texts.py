"""Reading texts with labels from a file of any supported format."""

from preprocess.reading.labelled.examples import LabelledText, Reading
from preprocess.reading.labelled.options import LabelledTextOptions


def read_labelled_texts(path: str, options: LabelledTextOptions) -> Reading[LabelledText]:
    """Read the labelled texts of a file.

    Raises:
        UserError: the file cannot be read, its format or columns cannot be found, or it has no
            example.
    """
    raise NotImplementedError


def check_labels(reading: Reading[LabelledText]) -> None:
    """Check that a classifier can be trained with these labels.

    Raises:
        UserError: there are fewer than two different labels (or numbers).
    """
    raise NotImplementedError
