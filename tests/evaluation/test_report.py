"""Tables and JSON of results."""

import json
import logging
import math

from mask2former.evaluation.report import class_table, json_ready, print_results, summary_table

METRICS = {
    "mIoU": 45.0,
    "pACC": 75.125,
    "IoU-sky": 100.0,
    "ACC-sky": 7.5,
    "IoU-t-junction": math.nan,
    "ACC-t-junction": math.nan,
}


def test_summary_holds_what_has_no_class():
    head, rule, values = summary_table(METRICS).splitlines()
    assert head.split() == ["|", "mIoU", "|", "pACC", "|"]
    assert set(rule) == set("|-:")
    assert values.split() == ["|", "45.00", "|", "75.12", "|"]


def test_class_table_is_aligned_and_shows_nan():
    lines = class_table(METRICS).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["|", "sky", "|", "100.00", "|", "7.50", "|"]
    assert lines[3].split() == ["|", "t-junction", "|", "nan", "|", "nan", "|"]


def test_figures_of_things_and_stuff_have_their_rows():
    metrics = {f"{figure}{group}": n for n, group in enumerate(("", "_th", "_st")) for figure in ("PQ", "SQ", "RQ")}
    head, _, *rows = summary_table({**metrics, "PQ-sky": 9.0}).splitlines()
    assert head.split() == ["|", "|", "PQ", "|", "SQ", "|", "RQ", "|"]
    assert [row.split()[1::2] for row in rows] == [
        ["All", "0.00", "0.00", "0.00"],
        ["Things", "1.00", "1.00", "1.00"],
        ["Stuff", "2.00", "2.00", "2.00"],
    ]


def test_many_classes_stand_side_by_side_and_none_is_lost():
    metrics = {f"{figure}-class {i}": float(i) for i in range(133) for figure in ("PQ", "SQ")}
    lines = class_table(metrics).splitlines()
    assert len(lines) < 40
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 152
    assert [lines[2].count(f"class {i} ") for i in (0, 1)] == [1, 0]
    assert sum(line.count("class ") for line in lines[1:]) == 133


def test_long_names_leave_one_column():
    metrics = {f"IoU-{'x' * 100}{i}": 1.0 for i in range(90)}
    assert len(class_table(metrics).splitlines()) == 92


def test_tasks_without_classes_have_no_class_table():
    assert class_table({"AP": 1.0}) == ""


def test_json_has_null_for_what_is_not_finite():
    results = {"sem_seg": METRICS, "list": [math.inf, 1.5, 2, "x", True]}
    text = json.dumps(json_ready(results), allow_nan=False)
    loaded = json.loads(text)
    assert loaded["sem_seg"]["IoU-t-junction"] is None
    assert loaded["sem_seg"]["mIoU"] == 45.0
    assert loaded["list"] == [None, 1.5, 2, "x", True]


def test_printing_logs_both_tables(monkeypatch):
    said = []
    monkeypatch.setattr(
        logging.getLogger("mask2former.evaluation.report"), "info", lambda text, *args: said.append(text % args)
    )
    print_results({"sem_seg": METRICS})
    assert said[0].startswith("Results of sem_seg by class, in percent:") and "t-junction" in said[0]
    assert said[1].startswith("Results of sem_seg over all classes, in percent:") and "mIoU" in said[1]
    print_results({"tracking": {"IDSw": 3.0, "Recall": 80.0}})
    assert said[2].startswith("Results of tracking over all classes, in percent (IDSw: a number):")
