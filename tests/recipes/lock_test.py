"""One recipe at a time in a folder."""

import argparse
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_bar import runs
from recipes import compare
from recipes import digits
from tests.recipes import loopback

ROOT = pathlib.Path(__file__).parents[2]
HOLD = """
import pathlib, sys, time
from keras_bar import runs
with runs.lock(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (digits.main, []),
        (compare.main, ["--dataset", "digits", "--methods", "bar"]),
    ],
)
def test_the_second_recipe_says_so_and_ends(
    tmp_path, capsys, monkeypatch, main, arguments
):
    monkeypatch.setattr(keras.Model, "fit", None)
    with runs.lock(tmp_path), pytest.raises(SystemExit) as error:
        main([*arguments, "--output", str(tmp_path)])
    assert error.value.code == 2
    message = capsys.readouterr().err
    assert f"Another process is at work in {tmp_path}" in message
    assert "Received: the process" in message
    assert not list(tmp_path.iterdir())


def test_a_killed_process_releases_the_folder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "held\n"
        with (
            pytest.raises(BlockingIOError, match=f"process {process.pid} on"),
            runs.lock(tmp_path),
        ):
            pass
    finally:
        process.kill()
        process.communicate()

    def free():
        try:
            with runs.lock(tmp_path):
                return True
        except BlockingIOError:
            return False

    loopback.wait_for(free)


def test_hosts_and_workers_share_a_folder(tmp_path, monkeypatch):
    with runs.lock(tmp_path), runs.lock(tmp_path, "tuner0"):
        second = argparse.Namespace(index=1)
        monkeypatch.setattr(runs, "current", lambda: second)
        with runs.lock(tmp_path), runs.lock(tmp_path, "tuner1"):
            pass
        with pytest.raises(BlockingIOError), runs.lock(tmp_path, "tuner0"):
            pass
