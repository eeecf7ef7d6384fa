import re

import pytest

from trainer.data import inspection, prepare
from trainer.data.sources import Row
from trainer.data.task_rows import SourceRows
from trainer.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    """A function (rows, label type) -> the folder of a data set prepared from them."""

    def write(rows, label_type="auto"):
        output = str(tmp_path_factory.mktemp("data"))
        prepare.prepare_data_set(
            SourceRows(rows, 2, label_type),
            task="csv",
            class_names=None,
            encoder="minilm",
            preprocess=str(tiny / "preprocess"),
            output=output,
            seed=0,
        )
        return output

    return write


def test_classes_lengths_and_examples_are_shown(folder):
    train = [Row(i, f"The movies, awful {i}!", None, "bad" if i % 4 else "good", "train") for i in range(1000)]
    test = [Row(i, f"The movies, awful {i}!" if i % 2 else f"Superb {i}", None, "good", "test") for i in range(60)]
    data = folder(train + test)
    lines = inspection.summarize_data_set(data).split("\n")
    assert [line.partition("; tokens: ")[0] for line in lines] == [
        f"{data}: csv, classification",
        "  train          776 examples (bad 576, good 200)",
        "  validation     194 examples (bad 144, good 50)",
        "  test            60 examples (bad 0, good 60)",
        "  left out: duplicates of test 30, bad rows 2",
        "  labels: 2 classes in 1,060 rows, since not all are numbers (--label_type)",
        "  30 rows repeat a text; all copies of a text are in one split",
        "  30 texts have copies with other labels, such as 'The movies, awful 1!': bad, good; "
        "'The movies, awful 3!': bad, good; 'The movies, awful 5!': bad, good",
        "  1 class has no text in validation or none in test, so that they are not measured there: 'bad'",
    ]
    assert lines[2].endswith("; tokens: 50 % 9, 90 % 9, 99 % 9, 100 % 9")  # A digit is a token.
    described = inspection.describe_data_set(data)
    assert described.startswith("\n".join(lines))
    assert "vocabulary: 1,024 pieces, uncased, of minilm" in described
    short, long = map(int, re.search(r"tokens in train: to 8 (\d+), to 16 (\d+)", described).groups())
    assert short < 100  # Numbers of two digits at most.
    assert short + long == 776
    shown = re.findall(r"example (\d+): (good|bad)\n  text:   (.*)\n  tokens: (.*)", described)
    assert len(shown) == 3
    for row, label, text, tokens in shown:
        assert (text, label) == (train[int(row)].text, train[int(row)].label)
        assert tokens.startswith("the movie ##s , awful ")
    assert inspection.describe_data_set(data, examples=1).count("\nexample ") == 1


def test_pairs_are_shown_with_both_texts(folder):
    described = inspection.describe_data_set(folder([Row(i, f"is {i} odd", "yes", str(i % 2), "") for i in range(40)]))
    assert "csv, classification, pairs of texts" in described
    assert described.count("  text_b:   yes\n  tokens_b: yes") == 3


def test_numbers_are_shown_as_labels(folder):
    rows = [Row(i, f"a movie {i}", None, f"{12300 + i}.25", "") for i in range(40)]
    described = inspection.describe_data_set(folder(rows))
    assert "csv, regression" in described
    assert len(re.findall(r"example (\d+): 123\d\d.25\n", described)) == 3


def test_a_class_of_two_lines_is_shown_in_one(folder):
    data = folder([Row(i, f"a movie {i}", None, "two\nlines" if i % 2 else "one", "") for i in range(40)])
    assert "(one 16, two lines 16)" in inspection.summarize_data_set(data)


def test_a_folder_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(UserError, match="--inspect"):
        inspection.describe_data_set(str(tmp_path))
