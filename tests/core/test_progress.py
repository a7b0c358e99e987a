"""Progress as plain lines, metrics as JSON lines that survive a killed writer."""

import json
import re

import pytest

from worldfoundry.core.progress import MetricsLog, Progress, clock, live_block, progress, read_metrics


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (12.34, "12.3 s"), (245, "4 min 05 s"), (3599.6, "1 h 00 min"), (7800, "2 h 10 min")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_plain_lines_name_count_rate_and_eta(capsys):
    counter = Progress("reading", 10, "files", every_s=0)
    counter.start -= 4.0
    counter.advance(4, note="a.mp4")
    line = capsys.readouterr().err.strip()
    assert re.fullmatch(r"reading: 4/10 files, (1|0\.99\d?) files/s, ETA 6\.0 s, a\.mp4", line), line


def test_not_a_terminal_gets_one_closing_line(capsys):
    with progress("reading", 3, "files") as counter:
        for _ in range(3):
            counter.advance()
    out, err = capsys.readouterr()
    assert out == ""  # stdout stays for data
    assert re.fullmatch(r"reading: 3 files in 0\.\d s\n", err), err


def test_unknown_total_has_no_eta():
    counter = Progress("reading", None, "files")
    counter.advance(5)
    assert "ETA" not in counter.line()
    assert counter.line().startswith("5 files, ")


def test_a_block_is_shown_when_due_and_a_last_time(capsys):
    state = ["one", "two"]
    with live_block(lambda: state, first_s=0) as show:
        show()
        state[1] = "three"
    assert capsys.readouterr().err == "one\ntwo\none\nthree\n"
    with live_block(lambda: state, first_s=1e9) as show:
        show()
    assert capsys.readouterr().err == "one\nthree\n"


def test_metrics_are_one_json_object_per_line(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.log(1, loss=0.5)
    log.log(2, loss=0.25, note="x")
    log.close()
    assert read_metrics(log.path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25, "note": "x"}]


def test_a_half_written_line_costs_only_itself(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps({"step": 1}) + "\n" + '{"step": 2, "lo')  # the process was killed here
    assert read_metrics(path) == [{"step": 1}]
    log = MetricsLog(path)
    log.log(2, loss=1.0)
    log.close()
    assert read_metrics(path) == [{"step": 1}, {"step": 2, "loss": 1.0}]
