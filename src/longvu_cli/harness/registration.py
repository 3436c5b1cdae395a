"""What lmms-eval reads at every start, whichever model it is to run: the name of ours, and where its class is."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The entry of the group ``lmms_eval.models``; the class is imported when it is used."""
    return ModelManifest(model_id="longvu", simple_class_path="longvu_cli.harness.model.LongVUModel")
