"""Every error that nnlite raises on purpose.

A message names the file, op or value, the rule it broke and the remedy. The command line prints any
``NnliteError`` in one line and exits with status 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations


class NnliteError(Exception):
    """Base of all errors that a user can cause and mend."""


class ShapeError(NnliteError, ValueError):
    """Operands or parameters of an operation do not fit together."""


class DTypeError(NnliteError, TypeError):
    """An operand has an element type that the operation does not take."""


class GradientError(NnliteError, RuntimeError):
    """A gradient was asked for that does not exist or is gone."""


class BackendError(NnliteError, RuntimeError):
    """No kernel variant of the requested backend can serve, or the backend is missing."""


class ModelError(NnliteError):
    """A model file cannot be read, is not supported, or lacks what the task needs."""


class DataError(NnliteError):
    """A folder of pictures or a picture cannot be used."""


class ConfigError(NnliteError, ValueError):
    """An option or a configuration value is not valid."""


class TrainingError(NnliteError):
    """Training had to stop; the message says where and what was kept."""


class OperandError(NnliteError, ValueError):
    """An operand holds a value that the operation does not take."""


class FileError(NnliteError):
    """A file cannot be written."""


class DeviceError(NnliteError, RuntimeError):
    """A device is missing, or operands of one operation are on several."""


class OutOfMemoryError(NnliteError, MemoryError):
    """An array does not fit into memory; the message says how much was asked for and what to change."""
