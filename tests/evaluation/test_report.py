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
