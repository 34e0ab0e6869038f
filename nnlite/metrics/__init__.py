"""Metrics of classifiers."""

from nnlite.metrics.calibration import (
    Reliability,
    ReliabilityBin,
    expected_calibration_error,
    reliability,
)
from nnlite.metrics.classification import (
    Average,
    ClassScores,
    accuracy,
    confusion_matrix,
    log_loss,
    precision_recall_f1,
    report,
    top_k_accuracy,
)

__all__ = [
    "Average",
    "ClassScores",
    "Reliability",
    "ReliabilityBin",
    "accuracy",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "precision_recall_f1",
    "reliability",
    "report",
    "top_k_accuracy",
]
