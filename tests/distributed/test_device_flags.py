from trainer.distributed import device_flags


def test_wrong_values_are_found_without_tensorflow():
    assert device_flags.find_value_problems("auto", None) == []
    assert device_flags.find_value_problems("mirrored", 2) == []
    problems = device_flags.find_value_problems("horovod", 0)
    assert [problem.setting for problem in problems] == ["--strategy", "--virtual_devices"]
    assert "one_device" in problems[0].required
