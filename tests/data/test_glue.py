import pytest
from fakes.glue_files import ENTAILMENT, MNLI, pack, write_glue, write_lines

from trainer.data import glue, splits, task_rows, tasks
from trainer.data.sources import Row
from trainer.errors import UserError

LABELED = sorted(tasks.GLUE)


@pytest.fixture(scope="module")
def glue_data(tmp_path_factory):
    return write_glue(tmp_path_factory.mktemp("glue") / "glue_data")


def read(source, task) -> tuple[list[Row], list[str]]:
    bad_rows: list[str] = []
    return glue.read_rows(str(source), bad_rows, task), bad_rows


@pytest.mark.parametrize("task", LABELED)
def test_train_is_divided_and_dev_is_the_test_split(glue_data, task):
    rows, bad_rows = read(glue_data, task)
    assert [sum(row.split == split for row in rows) for split in ("", "test")] == [60, 12]
    assert {row.label for row in rows} == set(tasks.TASKS[task].labels or {row.label for row in rows})
    assert {row.text_b is not None for row in rows} == {len(glue.LAYOUTS[task].texts) == 2}
    assert [row.id for row in rows if row.split == "test"] == list(range(12))
    # QQP is known for rows whose question goes on in another line.
    assert bad_rows == (["train.tsv line 62: 4 columns, not 6"] if task == "qqp" else [])


def test_labels_of_0_and_1_have_names_and_scores_are_numbers(glue_data):
    expected = {"cola": "unacceptable", "sst2": "negative", "mrpc": "not_equivalent", "qqp": "not_duplicate"}
    expected |= {"wnli": "not_entailment", "rte": ENTAILMENT[0], "qnli": ENTAILMENT[0], "mnli": MNLI[0]}
    expected |= {"stsb": "0.800"}
    assert {task: read(glue_data, task)[0][0].label for task in LABELED} == expected


def test_quotes_and_spaces_are_characters_of_the_text(glue_data):
    (row, *_), _ = read(glue_data, "sst2")
    assert row.text.startswith('"0 ')
    assert row.text.endswith(" ")
    (row, *_), _ = read(glue_data, "mrpc")  # Whose header begins with a mark.
    assert row.text[0] == row.text_b[-1] == '"'


@pytest.mark.parametrize("task", [*LABELED, "ax"])
@pytest.mark.parametrize("kind", ["all", "folder", "zip", "zips"])
def test_a_source_may_be_all_tasks_or_one_packed_or_not(glue_data, tmp_path, task, kind):
    folder = glue_data / glue.LAYOUTS[task].folders[0]
    source = {"all": glue_data, "folder": folder, "zip": tmp_path / "task.zip", "zips": tmp_path}[kind]
    if kind == "zip":
        pack(folder, source)
    elif kind == "zips":  # As they are downloaded.
        for layout in glue.LAYOUTS.values():
            pack(glue_data / layout.folders[0], tmp_path / f"{layout.folders[-1]}.zip")
    assert glue.find_folder(str(source), task).names
    for name in glue.LAYOUTS[task].unlabeled:
        found = glue.read_unlabeled(str(source), task, name)
        assert found.indexes == tuple(map(str, range(8)))
        assert {len(texts) for texts in found.texts} == {len(glue.LAYOUTS[task].texts)}
    if task != "ax":
        assert read(source, task) == read(folder, task)


def test_the_diagnostic_set_may_be_a_file_by_itself(glue_data, tmp_path):
    content = (glue_data / "diagnostic/diagnostic.tsv").read_bytes()
    (tmp_path / "AX.tsv").write_bytes(content)
    assert glue.read_unlabeled(f"{tmp_path}/AX.tsv", "ax", "AX").indexes == tuple(map(str, range(8)))


def test_mnli_has_a_dev_of_other_genres(glue_data):
    rows = glue.read_mismatched(str(glue_data))
    assert len(rows) == 12
    assert {row.label for row in rows} == set(MNLI)


def test_the_files_of_another_task_are_refused(glue_data):
    with pytest.raises(UserError, match=r"--source must hold train\.tsv of CoLA. Received: .*SST-2, which has such"):
        read(glue_data / "SST-2", "cola")
    with pytest.raises(UserError, match=r"which does not"):
        read(glue_data / "diagnostic", "rte")
    with pytest.raises(UserError, match=r"which does not exist"):
        read(glue_data / "nowhere", "rte")


def test_several_folders_that_may_be_the_task_are_named(tmp_path):
    for name in ("a", "b"):
        write_lines(tmp_path / name / "train.tsv", [["sentence", "label"], ["good", "1"]])
    with pytest.raises(UserError, match=r"has them in a, b\. Name one"):
        read(tmp_path, "sst2")


def test_a_missing_file_and_missing_columns_are_named(tmp_path):
    write_lines(tmp_path / "train.tsv", [["index", "premise", "sentence2"], ["0", "a", "b"]])
    with pytest.raises(UserError) as caught:
        read(tmp_path, "rte")
    assert [problem.required for problem in caught.value.problems] == [
        "have the column 'sentence1'",
        "have the column 'label'",
    ]
    assert "'premise'" in str(caught.value)
    write_lines(tmp_path / "train.tsv", [["sentence", "label"], ["good", "1"]])
    with pytest.raises(UserError, match=r"--source must hold dev\.tsv"):
        read(tmp_path, "sst2")


def test_rows_that_cannot_be_used_come_with_the_reason(tmp_path):
    header = ["index", "sentence1", "sentence2", "score"]
    good = [["0", "a", "b", "2.5"], ["1", "c", "d", "5"]]
    bad = [
        ["2", " ", "b", "1"],
        ["3", "a", "b", "5.1"],
        ["4", "a", "b", "x"],
        ["5", "a", "b"],
        ["6", "a", "b", "1", ""],
    ]
    write_lines(tmp_path / "train.tsv", [header, *good, *bad])
    write_lines(tmp_path / "dev.tsv", [header, *good])
    with (tmp_path / "dev.tsv").open("ab") as file:
        file.write(b"\n2\ta\tcaf\xe9\t1\r\n3\ta\tcr\rlf\t1\r\n")
    rows, bad_rows = read(tmp_path, "stsb")
    assert [row.text_b for row in rows] == ["b", "d", "b", "d", "cr\rlf"]
    assert bad_rows == [
        "train.tsv line 4: an empty text in 'sentence1'",
        "train.tsv line 5: the label '5.1', not a number from 0 to 5",
        "train.tsv line 6: the label 'x', not a number from 0 to 5",
        "train.tsv line 7: 3 columns, not 4",
        "train.tsv line 8: 5 columns, not 4",
        "dev.tsv line 5: bytes in 'sentence2' that are not UTF-8",
    ]


def test_a_label_that_is_no_class_is_a_bad_row(glue_data, tmp_path):
    text = (glue_data / "MNLI/dev_matched.tsv").read_text().replace("neutral\n", "-\n")
    for name in ("dev_matched", "dev_mismatched", "train"):
        (tmp_path / f"{name}.tsv").write_text(text)
    rows, bad_rows = read(tmp_path, "mnli")
    assert (len(rows), len(bad_rows)) == (16, 8)
    assert bad_rows[0].endswith("the label '-', none of entailment, neutral, contradiction")
    with pytest.raises(UserError, match=r"dev_mismatched\.tsv must have its texts and a label"):
        glue.read_mismatched(str(tmp_path))


def test_an_unlabeled_row_without_its_columns_is_refused(tmp_path):
    header = ["id", "question1", "question2"]
    write_lines(tmp_path / "train.tsv", [["id"]])
    write_lines(tmp_path / "test.tsv", [header, ["0", "a", "", "one more"], ["1", "b", "c"]])
    assert glue.read_unlabeled(str(tmp_path), "qqp", "QQP").texts == (("a", ""), ("b", "c"))
    write_lines(tmp_path / "test.tsv", [header, ["0", "a"]])
    with pytest.raises(UserError, match=r"test\.tsv line 2 must have its columns. Received: 2 columns, not 3"):
        glue.read_unlabeled(str(tmp_path), "qqp", "QQP")


def test_a_header_of_cola_is_read_where_there_is_one(glue_data, tmp_path):
    for split in ("train", "dev"):
        write_lines(tmp_path / f"{split}.tsv", [["sentence", "label", "idx"], ["a good one", "1", "0"]])
    assert [row.text for row in read(tmp_path, "cola")[0]] == ["a good one"] * 2


@pytest.mark.parametrize("name", ["dev_ids.tsv", "mrpc_dev_ids.tsv"])
def test_mrpc_is_read_as_microsoft_distributes_it(tmp_path, name):
    header = ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]
    train = [[str(n % 2), f"1{n}", f"2{n}", f'"a {n}', f"b {n}"] for n in range(6)]
    write_lines(tmp_path / "msr_paraphrase_train.txt", [header, *train], "\ufeff")
    write_lines(tmp_path / "msr_paraphrase_test.txt", [header, *train[:2]], "\ufeff")
    with pytest.raises(UserError, match=r"hold mrpc_dev_ids\.tsv"):
        read(tmp_path, "mrpc")
    write_lines(tmp_path / name, [["14", "24"], ["15", "25"]])
    rows, bad_rows = read(tmp_path, "mrpc")
    assert not bad_rows
    assert [row.split for row in rows] == [""] * 4 + ["test"] * 2
    assert glue.read_unlabeled(str(tmp_path), "mrpc", "MRPC") == glue.Unlabeled(
        ("0", "1"), (('"a 0', "b 0"), ('"a 1', "b 1"))
    )
    write_lines(tmp_path / name, [["1", "2"]])
    with pytest.raises(UserError, match=r"list pairs of msr_paraphrase_train\.txt"):
        read(tmp_path, "mrpc")


def test_a_damaged_archive_is_named(glue_data, tmp_path):
    packed = pack(glue_data / "RTE", tmp_path / "RTE.zip")
    packed.write_bytes(packed.read_bytes()[:500])
    with pytest.raises(UserError, match=r"--source must be a complete \.zip"):
        read(packed, "rte")


# --- As prepare_data.py reads them ----------------------------------------------------------------


def test_validation_is_a_tenth_of_train(glue_data):
    read_rows = task_rows.read_rows(task_rows.SourceOptions("sst2", str(glue_data)))
    assert read_rows.label_type == "class"
    parts = splits.split_rows(read_rows.rows, "classification", 0, tasks.TASKS["sst2"].validation_fraction).rows
    assert {name: len(part) for name, part in parts.items()} == {"train": 54, "validation": 6, "test": 12}


def test_broken_rows_are_refused_or_counted(glue_data):
    with pytest.raises(UserError, match=r"train\.tsv line 62: 4 columns, not 6"):
        task_rows.read_rows(task_rows.SourceOptions("qqp", str(glue_data)))
    assert task_rows.read_rows(task_rows.SourceOptions("qqp", str(glue_data), bad_rows="skip")).bad_rows == 1
    assert task_rows.read_rows(task_rows.SourceOptions("stsb", str(glue_data))).label_type == "number"
