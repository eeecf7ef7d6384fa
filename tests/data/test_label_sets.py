import pytest

from trainer.data import label_sets
from trainer.data.labels import UnusableValue

MISSING = {"na", "nan", "null"}


def read(value):
    return label_sets.read_labels({"tags": value}, "tags", (), MISSING)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["b", "a", " b "], ("a", "b")),
        ([], ()),
        ([2, True, 1.5], ("1.5", "2", "true")),
        ('["b", "a"]', ("a", "b")),
        ("['b', \"a, c\"]", ("a, c", "b")),
        ("[]", ()),
    ],
)
def test_a_list_is_a_set_of_labels(value, expected):
    assert read(value) == ("", expected)


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("{'b', 'a, c'}", ("a, c", "b")),
        ("('a', 'b')", ("a", "b")),
        ('{b,"a, c"}', ("a, c", "b")),
        ('{"a \\"q\\" b",c}', ('a "q" b', "c")),
        ("{}", ()),
        ("set()", ()),
        ("{['a']}", ("['a']",)),
    ],
)
def test_a_set_may_be_written_as_other_programs_do(cell, expected):
    assert read(cell) == (cell, expected)


@pytest.mark.parametrize(
    ("value", "cell"),
    [(" a | b ", "a | b"), ("", ""), (None, ""), (3, "3"), (True, "true"), ("(a)", "(a)"), ("(a) b", "(a) b")]
    + [(cell, cell) for cell in ("{a}|{b}", "{{}}", "{a,\n b}")],
)
def test_another_value_is_a_cell(value, cell):
    assert read(value) == (cell, None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (["a", ""], "an empty label"),
        (["a", None], "an empty label"),
        (["a", "NaN"], "'NaN' .--missing_labels"),
        ([float("nan")], "'nan'"),
        ([["a"]], "list as a label"),
        ({"a": 1}, "dict as a label"),
        ("['a' 'b']", "begins like a list and is none"),
        ("[a, b]", "begins like a list and is none"),
        ('{"a": 0, "b": 1}', "an object as label"),
        ('{"a": false}', "an object as label"),
    ],
)
def test_what_is_no_list_of_labels_is_unusable(value, reason):
    with pytest.raises(UnusableValue, match=reason):
        read(value)


def test_columns_of_yes_and_no_are_labels():
    record = {"a": "1.0", "b": 0, "c": True, "d": "FALSE"}
    assert label_sets.read_labels(record, "", ("d", "c", "b", "a"), ()) == ("", ("a", "c"))
    for value in ("", "-1", "2", None, "yes"):
        with pytest.raises(UnusableValue, match="in 'a', which is neither 0 nor 1"):
            label_sets.read_labels({"a": value}, "", ("a",), ())


def divide(read, tables=None, delimiter=None):
    return label_sets.divide_cells(read, tables or [0] * len(read), delimiter, "tags", MISSING)


@pytest.mark.parametrize(
    ("cells", "delimiter"),
    [
        (["a", "b|a", "c, d"], "|"),
        (["a", "b;a", "c, d"], ";"),
        (["a", "b,a"], ","),
        (["a", "b c"], None),
    ],
)
def test_the_delimiter_is_the_first_that_a_cell_has(cells, delimiter):
    assert label_sets.find_delimiter(cells) == delimiter


def test_cells_are_divided_once_each():
    sets, form = divide([("b; a;b;", None), ("", None), ("c", None), ("b; a;b;", None)])
    assert sets == [("a", "b"), (), ("c",), ("a", "b")]
    assert form == "separated by ';'; --label_delimiter names another"
    sets, form = divide([("b; a", None), ("c", None)], delimiter=" ")
    assert (sets, form) == ([("a", "b;"), ("c",)], "separated by ' '")


def test_a_cell_with_a_missing_label_is_unusable():
    (bad, good), _ = divide([("a|NA", None), ("a|b", None)])
    assert isinstance(bad, UnusableValue)
    assert "'NA'" in str(bad)
    assert good == ("a", "b")


def test_in_a_table_with_lists_a_string_is_one_label():
    read = [("", ("a",)), ("x, y", None), ("x, y", None)]
    assert divide(read, [0, 0, 1]) == (
        [("a",), ("x, y",), ("x", "y")],
        "lists, and cells separated by ','; --label_delimiter names another",
    )
    assert divide(read, delimiter=",")[0] == [("a",), ("x", "y"), ("x", "y")]


@pytest.mark.parametrize("names", [["b", "a"], [], ["a, b", "c|d"], ["[x"], ["ü"]])
def test_joined_labels_are_read_again(names):
    cell = label_sets.join_labels(names, ["other", *names])
    (read_again,), _ = divide([read(cell)])
    assert read_again == tuple(sorted(names))


def test_equal_numbers_are_one_label():
    sets = [("1", "2"), ("1.0", "2"), ("1", "1.0")]
    assert label_sets.name_equal_numbers(sets) == ([("1", "2"), ("1", "2"), ("1",)], {"1.0": "1"})
    assert label_sets.name_equal_numbers([("a",), ()]) == ([("a",), ()], {})


def test_the_decision_counts_labels_and_rows_without():
    decision = label_sets.describe_decision([("a", "b"), ("a",), ()], "lists")
    assert decision == "2 labels in 3 rows, 1 with several and 1 with none (lists)"


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ((True, "auto", None, ";", ()), []),
        ((True, "auto", None, None, ("a", "b")), []),
        ((False, "auto", None, ";", ("a",)), ["--label_delimiter", "--label_columns"]),
        ((True, "class", None, "", ()), ["--label_type", "--label_delimiter"]),
        (
            (True, "auto", "tags", ";", ("a", "", "a")),
            ["--label_column", "--label_delimiter", "--label_columns"],
        ),
    ],
)
def test_every_wrong_flag_of_labels_is_found(arguments, settings):
    assert [problem.setting for problem in label_sets.find_flag_problems(*arguments)] == settings
