from benchmark_samples import MACHINE, SAMPLES, SETTINGS

from trainer.benchmarks import chart, results


def test_a_picture_has_bars_and_curves(tmp_path):
    path = tmp_path / "chart.png"
    chart.draw_results(results.Results(str(tmp_path / "results.json"), SETTINGS, MACHINE, SAMPLES), str(path))
    assert path.read_bytes().startswith(b"\x89PNG")
    assert path.stat().st_size > 20_000


def test_nothing_is_drawn_of_nothing(tmp_path):
    path = tmp_path / "chart.png"
    chart.draw_results(results.Results("", SETTINGS, MACHINE, []), str(path))
    assert not path.exists()
