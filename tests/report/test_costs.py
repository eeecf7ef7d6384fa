"""What a run cost."""

import dataclasses

import pytest

from trainer.report import costs


@pytest.mark.parametrize(
    ("machine", "watts", "price"),
    [
        ({"device_type": "CPU", "devices": 1, "cores": 8}, 80, 0.4),
        ({"device_type": "CPU", "devices": 3, "cores": 8}, 240, 1.2),
        ({"device_type": "GPU", "devices": 4, "cores": 64}, 1400, 12),
        ({"device_type": "TPU", "devices": 8, "cores": 96}, 2000, 12),
    ],
)
def test_watts_and_price_are_those_of_the_devices(machine, watts, price):
    assert costs.watts_and_price(machine)[:2] == pytest.approx((watts, price))


def test_the_assumptions_are_shown(facts):
    section = costs.section(facts)
    assert "2 cores x 10 W and x $0.05 an hour" in section.method[0]
    rows = {row[0].text: row[1].text for row in section.tables[0].rows}
    assert rows["energy, Wh (estimated)"] == "0.418"  # 75.25 s x 20 W
    assert rows["most memory of the process, GB"] == "1.50"
    assert rows["training, examples/s (median)"] == "145.0"


def test_a_run_that_does_not_know_its_machine_has_no_estimate(facts):
    result = {key: value for key, value in facts.result.items() if key != "machine"}
    section = costs.section(dataclasses.replace(facts, result=result))
    assert not section.sentences
    assert not section.method
