import json
import sys
from pathlib import Path

import pytest
from helpers import ROOT, python

from trainer.benchmarks import ours, peer, results, rows
from trainer.benchmarks.inputs import QUICK, Inputs, Settings
from trainer.runtime.signals import StopRequest

MADE = [
    *("encoders/random_tiny", "encoders/hugging_face", "data/movie_snippets", "texts/movie_snippets"),
    *("runs/float32", "runs/bfloat16", f"texts/short_{QUICK.short_texts}.txt", f"texts/long_{QUICK.long_texts}.txt"),
    *(f"texts/reviews_{n}.csv" for n in (QUICK.all_reviews, *QUICK.documents)),
    *(f"{kind}/reviews_{n}" for n in (QUICK.reviews, 2 * QUICK.long_texts) for kind in ("data", "texts")),
    *(f"data/reviews_{n}random_tiny" for n in (QUICK.reviews, *QUICK.documents)),
]


def contenders(row: str, tmp_path: Path, *, peers: bool = True, **settings) -> list[rows.Contender]:
    """Those of a row, of inputs that are all made."""
    for name in MADE:
        done = tmp_path / f"{name}.done"
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    python_of_peers = Path(sys.executable) if peers else None
    every = Settings("random:tiny", tmp_path, peer_python=python_of_peers, sizes=QUICK, **settings)
    return results.ALL_ROWS[row].contenders(Inputs(every, StopRequest()))


@pytest.mark.parametrize("row", results.ALL_ROWS)
def test_the_contenders_of_a_row_differ_in_name_or_size(row, tmp_path):
    found = contenders(row, tmp_path)
    assert len({(each.name, each.size) for each in found}) == len(found) >= 1
    assert found[0].name.startswith(rows.OURS)
    assert all(each.name.startswith((rows.OURS, rows.PEER)) for each in found)


@pytest.mark.parametrize("row", results.ALL_ROWS)
def test_without_peers_a_row_has_ours_alone(row, tmp_path):
    assert not any(each.name.startswith(rows.PEER) for each in contenders(row, tmp_path, peers=False))


@pytest.mark.parametrize("row", rows.ROWS)
def test_every_row_but_those_of_growth_has_a_peer_at_its_best(row, tmp_path):
    found = [each for each in contenders(row, tmp_path) if each.name.startswith(rows.PEER)]
    assert found
    assert all("hugetlb=1" in each.variables["GLIBC_TUNABLES"] for each in found)
    # The cache that this project turns off for TensorFlow is on.
    assert all(each.variables["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "1024" for each in found)


@pytest.mark.parametrize("row", results.ALL_ROWS)
def test_a_process_is_given_the_arguments_of_its_function(row, tmp_path):
    for each in contenders(row, tmp_path):
        if each.printed:
            *_, module, kind, values = each.command
            function = (peer if module.endswith("peer") else ours).KINDS[kind]
            names = function.__code__.co_varnames[: function.__code__.co_argcount + function.__code__.co_kwonlyargcount]
            assert json.loads(values).keys() <= set(names) or kind == "first_step"


@pytest.mark.parametrize("row", results.ALL_ROWS)
def test_a_processor_that_emulates_bfloat16_computes_in_float32(row, tmp_path):
    for each in contenders(row, tmp_path, precision="float32"):
        assert "bfloat16" not in each.name
        assert not any("bfloat16" in argument for argument in each.command)


def test_the_command_measures_prints_draws_and_goes_on(tmp_path):
    output = tmp_path / "benchmark.json"
    command = ["scripts/benchmark.py", "--quick", f"--output={output}", f"--work={tmp_path / 'work'}"]
    first = python(*command, "--rows=product", "--repetitions=2", check=True)
    assert "| largest rate of 4096 x 384 x 1536, GFLOP/s | " in first.stdout
    assert first.stderr.count("product, ours") == 2
    assert output.with_suffix(".png").stat().st_size > 5_000
    content = json.loads(output.read_text(encoding="utf-8"))
    assert content["machine"]["processor"]
    assert len(content["samples"]) == 2
    again = python(*command, "--rows=product", "--repetitions=3", check=True)
    assert again.stderr.count("product, ours") == 1
    table = python("scripts/benchmark.py", "--table", f"--output={output}", check=True)
    assert table.stdout.strip() in again.stdout


def test_rows_without_their_data_are_left_out_by_name(tmp_path):
    command = ["scripts/benchmark.py", f"--output={tmp_path / 'none.json'}", f"--work={tmp_path / 'work'}"]
    done = python(*command, "--rows=predict_reviews,prepare", check=True)
    assert "left out without --imdb: predict_reviews, prepare" in done.stdout


@pytest.mark.parametrize("flag", ["--rows=stepp", "--output=results.txt", "--repetitions=0"])
def test_wrong_flags_are_refused(flag):
    assert python("scripts/benchmark.py", flag).returncode == 2


@pytest.mark.skipif((ROOT / ".venv-peers/bin/python").exists(), reason="the peers are installed")
def test_peers_that_are_not_installed_are_named():
    done = python("scripts/benchmark.py", "--peers")
    assert done.returncode == 2
    assert "make peers" in done.stderr
