import zipfile

from trainer.glue import submission


def test_an_archive_holds_a_file_for_each_test_set(tmp_path):
    content = submission.format_predictions(["0", "7"], ["entailment", "neutral"])
    assert content == "index\tprediction\n0\tentailment\n7\tneutral\n"
    files = {"RTE": "r", "CoLA": content}
    path = tmp_path / "submission.zip"
    submission.write_submission(str(path), files)
    with zipfile.ZipFile(path) as archive:
        assert {name: archive.read(name).decode() for name in archive.namelist()} == {
            "CoLA.tsv": content,
            "RTE.tsv": "r",
        }
    first = path.read_bytes()
    submission.write_submission(str(path), dict(reversed(files.items())))
    assert path.read_bytes() == first
    missing = submission.missing_files(files)
    assert len(missing) == 9
    assert {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"} <= set(missing)
