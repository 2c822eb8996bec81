"""One MLflow run around one whole command. Without MLflow, the same commands write `run.json` only."""
