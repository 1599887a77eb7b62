"""Running a sweep's cells: planned whole, side by side where that pays, resumable, with nothing swallowed."""
