"""Training on several hosts; `tests/recipes/hosts_test.py` runs it."""

import keras
import pytest

from keras_bar import multi_host


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="tf.distribute"
)
@pytest.mark.parametrize("name", ["reduce_per_replica", "TensorFlowTrainer"])
def test_another_keras_is_not_mended(monkeypatch, name):
    from keras.src.backend.tensorflow import trainer

    monkeypatch.setattr(trainer, name, lambda values: values)
    with pytest.raises(ValueError, match="not known to train on several"):
        multi_host.Hosts("a strategy")


def test_a_host_alone(tmp_path):
    hosts = multi_host.Hosts(patience=0.1)
    assert hosts.is_chief and hosts.from_chief(3) == 3
    path = tmp_path / "agreed.json"
    assert hosts.agree(path, {"a": 1}) == {"a": 1} == hosts.agree(path, {})


def test_a_folder_that_hosts_do_not_share(tmp_path):
    hosts = multi_host.Hosts(patience=0.1)
    hosts.is_chief = False
    with pytest.raises(OSError, match="a file system that all hosts share"):
        hosts.agree(tmp_path / "settings.json", {})


@pytest.mark.parametrize(
    "config",
    [
        "",
        "no JSON",
        "[]",
        '{"cluster": {"worker": ["a:1"]}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
        '{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": '
        '"worker", "index": 0}}',
        '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": '
        "1}}",
    ],
)
def test_hosts_that_are_not_known(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match="Expected the environment variable"):
        multi_host.read_config()


def test_the_example_of_the_error_is_right(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", multi_host.EXAMPLE)
    assert multi_host.read_config() == (["10.0.0.1:2222", "10.0.0.2:2222"], 0)


def test_hosts_that_do_different_work(monkeypatch):
    hosts = multi_host.Hosts()
    hosts.check_same({"seeds": [0, 1]})
    monkeypatch.setattr(hosts, "from_chief", lambda value: value + 1)
    with pytest.raises(ValueError, match="different work.*'seeds'"):
        hosts.check_same({"seeds": [0, 1]})


def test_no_error_is_a_lost_host_where_none_was_joined():
    assert not multi_host.is_lost_host(RuntimeError("gone"))


def test_the_chief_is_first():
    hosts, order = multi_host.Hosts(), []
    hosts.wait = lambda: order.append("waits")
    for hosts.is_chief in (True, False):
        with hosts.chief_first():
            order.append("reads")
    assert order == ["reads", "waits", "waits", "reads"]
