"""The section by class."""

from report_facts import class_facts

from trainer.report import classes


def shown(section):
    return {cell.value: cell.text for table in section.tables for row in table.rows for cell in row if cell.value}


def test_scores_and_confusion_are_those_of_the_result(facts):
    figures = shown(classes.section(facts))
    described = facts.result["test_classes"]
    for i, name in enumerate(facts.manifest.labels):
        values = described["by_class"][name]
        assert figures[f"class.{i}.f1"] == f"{values['f1']:.4f}"
        assert figures[f"class.{i}.support"] == str(values["support"])
        for j, said in enumerate(facts.manifest.labels):
            assert figures[f"confusion.{i}.{j}"] == str(described["confusion"][name].get(said, 0))


def test_many_classes_have_a_list_of_mistakes_and_no_curves():
    section = classes.section(class_facts(tuple(f"class {i}" for i in range(40))))
    assert len(section.tables[0].rows) == classes.MAX_CLASSES
    assert section.tables[1].head == ["class", "predicted", "examples"]
    assert not section.figures


def test_three_classes_have_a_curve_each():
    section = classes.section(class_facts(("a", "b", "<c> $x$")))
    assert len(section.figures) == 2
    assert "&lt;c&gt; $x$" in section.figures[0].svg


def test_the_weakest_class_and_the_most_frequent_mistake_are_named():
    by_class = {"a": {"f1": 0.5}, "b": {"f1": 0.9}}
    said = classes.describe_classes(by_class, {"a": {"a": 5, "b": 3}, "b": {"b": 9}})
    assert "'a' (0.5000)" in said
    assert "'b' where 'a' is right: 3 times" in said
    assert "no mistakes" in classes.describe_classes(by_class, {"a": {"a": 8}, "b": {"b": 9}})


def test_numbers_have_no_classes(numbers):
    assert classes.section(numbers) is None
