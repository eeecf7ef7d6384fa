from trainer.comparison import compared_runs, comparing
from trainer.comparison.comparing import Example


def compare(leave_run, *predicted, labels=(0, 1, 2, 1, 0), **options):
    folders = [leave_run(f"run{number}", labels, each, **options) for number, each in enumerate(predicted)]
    return comparing.compare_runs(compared_runs.read_runs(folders), 1000)


def test_texts_on_which_runs_of_classes_disagree_are_shown(leave_run):
    found = compare(leave_run, [0, 1, 2, 0, 0], [0, 1, 1, 1, 1])
    assert [each.example_id for each in found.disagreements] == ["2", "3", "4"]
    assert found.disagreements[1] == Example("3", "", "yes", ["no", "yes"], [False, True])
    assert found.pairs[0].mcnemar.only_first == 2


def test_numbers_are_shown_by_their_difference(leave_run):
    options = {"kind": "regression", "labels": [1.0, 2.0, 4.0]}
    found = compare(leave_run, [1.0, 2.0, 4.0], [1.5, 2.0, 2.0], **options)
    assert [each.example_id for each in found.disagreements] == ["2", "0", "1"]
    assert found.disagreements[0].predicted == ["4.0000", "2.0000"]
    assert found.pairs[0].mcnemar is None


def test_the_table_has_settings_figures_and_differences(leave_run):
    found = compare(leave_run, [0, 1, 2, 0, 0], [0, 1, 2, 1, 0], [1, 0, 0, 0, 1])
    printed = comparing.format_comparison(found)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "test accuracy 0.8000 1.0000 0.0000" in lines
    assert "seconds 7 7 7" in lines
    assert "run1 minus run0, on the same 5 test texts" in lines
    assert any(line.startswith("accuracy +0.2000 +0.0000 to +") for line in lines)
    assert "Right by run2 alone 0, by run0 alone 4: McNemar's exact p = 0.125" in lines
