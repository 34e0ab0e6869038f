"""Metrics of classifiers and of predicted numbers."""

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
from nnlite.metrics.multilabel import average_precision, multilabel_report
from nnlite.metrics.regression import regression_report

__all__ = [
    "Average",
    "ClassScores",
    "Reliability",
    "ReliabilityBin",
    "accuracy",
    "average_precision",
    "confusion_matrix",
    "expected_calibration_error",
    "log_loss",
    "multilabel_report",
    "precision_recall_f1",
    "regression_report",
    "reliability",
    "report",
    "top_k_accuracy",
]
