from trainer.runtime import text_tables


def test_the_first_column_is_to_the_left_and_the_others_to_the_right():
    table = text_tables.align_columns([["", "loss"], ["validation", "0.5"], ["x", "0.25"]])
    assert table.splitlines() == ["            loss", "validation   0.5", "x           0.25"]
