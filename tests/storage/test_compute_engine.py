"""The region of the machine, read from a metadata server that the simulator plays."""

CODE = "from trainer.storage import compute_engine\nprint(compute_engine.find_region())"


def test_the_region_is_read_from_the_metadata_server(simulator):
    host = f"127.0.0.1:{simulator.port}"
    assert simulator.python(CODE, GCE_METADATA_HOST=host, NO_GCE_CHECK="") == "us-central1"


def test_other_machines_have_no_region(simulator):
    assert simulator.python(CODE) == "None"
