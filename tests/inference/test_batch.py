"""A file of requests: bad lines are told and passed over, finished videos are kept, changed requests are made again."""

import json

import numpy as np
import pytest

from worldfoundry.core.contracts import WorldVideo
from worldfoundry.core.errors import BlockedError, UsageError
from worldfoundry.inference.batch import read_batch, run_batch


def write(path, *rows):
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


class Maker:
    def __init__(self):
        self.made = []

    def __call__(self, fields, path):
        if "bad" in fields:
            raise UsageError("a bad field.")
        if "several" in fields:
            raise UsageError("one. Fix it.\ntwo")

        def generate():
            if "unsafe" in fields:
                raise BlockedError("blocked.")
            self.made.append(path.name)
            return WorldVideo(frames=np.zeros((2, 16, 16, 3), np.uint8), fps=8, seed=0, config={"x": 1})

        return dict(fields), generate


def test_lines_have_names_and_problems(tmp_path):
    lines = read_batch(write(tmp_path / "r.jsonl", {"seed": 1}, "", "[1]", {"name": "a"}, "{", {"name": "../b"}, {"name": "a"}))
    assert [(line.number, line.name) for line in lines] == [
        (1, "00001"),
        (3, "00003"),
        (4, "a"),
        (5, "00005"),
        (6, "00006"),
        (7, "a"),
    ]
    problems = [line.problem for line in lines]
    assert problems[0] == problems[2] == ""
    assert "not list" in problems[1]
    assert "no JSON" in problems[3]
    assert "without folders, not '../b'" in problems[4]
    assert "taken by an earlier line" in problems[5]


def test_a_bad_line_does_not_stop_the_rest_and_decides_the_exit_code(tmp_path, capsys):
    file = write(tmp_path / "r.jsonl", {"seed": 1}, {"bad": 1}, {"unsafe": 1}, {"several": 1}, {"seed": 4})
    make = Maker()
    assert run_batch(read_batch(file), tmp_path / "out", make) == 3
    assert make.made == ["00001.mp4", "00005.mp4"]
    err = capsys.readouterr().err.splitlines()
    assert "line 2: a bad field." in err
    assert "line 3: blocked." in err
    assert "line 4: one. Fix it.; two" in err
    assert run_batch(read_batch(write(file, {"bad": 1})), tmp_path / "out", make) == 2


def test_what_is_finished_is_kept_unless_it_is_asked_otherwise(tmp_path, capsys):
    out, make = tmp_path / "out", Maker()
    file = write(tmp_path / "r.jsonl", {"name": "a", "seed": 1}, {"name": "b", "seed": 2})
    assert run_batch(read_batch(file), out, make) == 0
    (out / "b.json").unlink()  # as if the process had died between the two
    write(file, {"name": "a", "seed": 1}, {"name": "b", "seed": 2}, {"name": "c"})
    assert run_batch(read_batch(file), out, make) == 0
    assert make.made == ["a.mp4", "b.mp4", "b.mp4", "c.mp4"]
    write(file, {"name": "a", "seed": 7})
    run_batch(read_batch(file), out, make)
    assert make.made[-1] == "a.mp4"
    assert "1 requests, 0 were there already" in capsys.readouterr().err


def test_a_separator_within_a_prompt_ends_no_line(tmp_path):
    file = write(tmp_path / "r.jsonl", json.dumps({"prompt": "one\u2028two\u0085"}, ensure_ascii=False))
    assert [dict(line.fields) for line in read_batch(file)] == [{"prompt": "one\u2028two\u0085"}]


@pytest.mark.parametrize(("content", "words"), [("", "holds no request"), (None, "cannot be read as text")])
def test_no_requests(tmp_path, content, words):
    file = tmp_path / "r.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=words):
        read_batch(file)
