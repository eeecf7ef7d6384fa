from trainer.glue import dev_table


def test_the_median_over_the_seeds_is_beside_what_is_published():
    results = {
        "mrpc": {seed: {"test": {"f1": f1, "accuracy": f1 - 0.1}} for seed, f1 in ((0, 0.9), (1, 0.5), (2, 0.8))},
        "mnli": {seed: {"test": {"accuracy": 0.7}} for seed in range(3)},
    }
    scores = dev_table.collect_scores(results, {0: 0.6, 1: 0.65, 2: 0.7})
    assert [(each.name, each.metric, round(each.median, 4)) for each in scores] == [
        ("mrpc", "f1", 0.8),
        ("mrpc", "accuracy", 0.7),
        ("mnli", "accuracy", 0.7),
        ("mnli mismatched", "accuracy", 0.65),
    ]
    header, f1, *_ = dev_table.format_scores(scores).splitlines()
    assert header.split("  ")[-2:] == ["BERT-base dev", "BERT-base test"]
    assert f1.split() == ["mrpc", "f1", "0.8000", "0.5000", "0.9000", "3", "0.8885", "0.8890"]
    one = dev_table.format_scores(dev_table.collect_scores({"mnli": {4: {"test": {"accuracy": 0.7}}}}, {4: 0.6}))
    assert one.splitlines()[2].split() == ["mnli", "mismatched", "accuracy", "0.6000", "1", "0.8410", "0.8340"]
    assert "lowest" not in one
