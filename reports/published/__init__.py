"""Printed results of papers, one CSV file each; `index.yaml` says what they mean in our terms."""
