"""A report as JSON: tables with their captions, and their cells as flat objects."""

import json
from dataclasses import replace

from imbcil.reports.model import Report
from imbcil.reports.render.records import cell_records, conditions_fields


def draw(report: Report) -> str:
    """`{"tables": [{title, ..., caption, cells}], "notes": [...]}`."""
    tables = [
        {
            "title": table.title,
            **conditions_fields(table),
            "caption": table.caption,
            "notes": table.notes,
            "cells": list(cell_records(replace(report, tables=(table,)))),
        }
        for table in report.tables
    ]
    return json.dumps({"tables": tables, "notes": report.notes}, indent=1, ensure_ascii=False) + "\n"
