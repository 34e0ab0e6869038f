"""Metrics of classifiers."""

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
    "accuracy",
    "confusion_matrix",
    "log_loss",
    "precision_recall_f1",
    "report",
    "top_k_accuracy",
]
