"""`recipes/report.py`: one page of what recipes have left in a folder."""

import json
import re

import pytest

from recipes import report as recipe


def run(*arguments):
    recipe.main([str(x) for x in arguments])


def squeezed(text):
    """HTML without the space between its elements."""
    return re.sub(r">\s+<", "><", text)


def test_report(tmp_path, capsys):
    cell = tmp_path / "cell"
    cell.mkdir()
    report = {"accuracy": 0.91, "history": {"prune": {"loss": [2.0, 1.25]}}}
    report |= {"lost": float("nan"), "excess": float("inf"), "done": True}
    (cell / "report.json").write_text(json.dumps(report))
    (tmp_path / "results.csv").write_text("method,accuracy\nbar,0.9123456\n")
    table = (
        "## Made up\n\n| method | volume |\n| --- | --- |\n"
        "| bar | 1/2 < 1 |\n\n"
        "`a < b` [x](javascript:alert(1)) ![y](https://example.com/y.png) "
        "<script>alert(1)</script> <https://example.com>\n\n[z][1]\n\n"
        "[1]: https://example.com\n\n<div onclick='x'>block</div>\n"
    )
    (tmp_path / "tables.md").write_text(table)
    (tmp_path / ".half").mkdir()  # Of a process that was killed.
    (tmp_path / ".half" / "volume.svg").write_text("<svg")
    (tmp_path / "volume.svg").write_text("<svg>&</svg>")
    (tmp_path / "volume.png").write_bytes(b"not this one")
    run(tmp_path)
    assert "report.html" in capsys.readouterr().out
    page = squeezed((tmp_path / "report.html").read_text())
    assert page.count("<img") == 1 and "data:image/svg+xml;base64," in page
    assert "<td>bar</td><td>0.9123</td>" in page
    # The text is what people read; its numbers are there, too.
    assert page.index("<td>1/2 &lt; 1</td>") < page.index("<img")
    assert "<h2>Made up</h2>" in page
    assert "<th>prune</th><td>1.25</td>" in page
    # Nothing that would have to be fetched, and nothing that acts.
    assert "<code>a &lt; b</code>" in page
    for x in ("<a ", "<script", 'src="http', 'href="', "<div onclick"):
        assert x not in page


def test_report_of_a_training_in_progress(tmp_path, capsys):
    """With the logs that a recipe has written so far, or one's own callback."""
    cell = tmp_path / "cell"
    cell.mkdir()
    logs = {
        str(i): {"flops": 0.9 - i / 10, "budget": 1 - i / 10} for i in range(3)
    }
    (cell / "prune.json").write_text(json.dumps(logs))
    (cell / "settings.json").write_text(json.dumps({"metric": "flops"}))
    own = tmp_path / "own"
    own.mkdir()
    journal = {"1": {"gate": 10 * [0] + 10 * [1]}}
    (own / "gates.json").write_text(json.dumps(journal))
    run(tmp_path)
    page = squeezed((tmp_path / "report.html").read_text())
    assert page.count("<img") == 2
    assert "moving budget" in page and "channels are to live" in page
    assert not list(cell.glob("*.svg")) and not list(own.glob("*.svg"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nothing to report"),
        ([".", "-o", "full.keras"], "ends with .html"),
        (["damaged"], "Expected a JSON object"),
        (["binary"], "is no table"),
    ],
)
def test_errors_are_a_line(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    for name, file in (("damaged", "report.json"), ("binary", "x.csv")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_bytes(b"[\xff]")
    (tmp_path / "damaged" / "report.json").write_text("[]")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SystemExit) as error:
        run(*arguments)
    assert error.value.code == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert message in last and "Received:" in last
    assert sorted(tmp_path.rglob("*")) == before
