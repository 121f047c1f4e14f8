"""TensorFlow and Keras, imported once, with the chatter of TensorFlow's C++ side held back.

Every module of `branchy.models` takes `tf` and `keras` from here.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator

from branchy.errors import MissingExtraError, TrainingError


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what native code writes to standard error, and show it only when the block fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        saved = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            kept.seek(0)
            logging.getLogger(__name__).debug("%s", kept.read().decode(errors="replace"))
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    with quiet():
        import keras
        import tensorflow as tf
except ImportError as error:
    if (error.name or "").partition(".")[0] not in ("keras", "tensorflow"):
        raise
    raise MissingExtraError("training", "train") from None
tf.get_logger().setLevel(logging.ERROR)
keras.config.set_floatx("float32")
keras.config.set_image_data_format("channels_last")

__all__ = ["keras", "quiet", "tf", "translated", "writing"]


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise `TrainingError` where TensorFlow fails in the block.

    Args:
        what: is done there, for the message.
    """
    try:
        yield
    except tf.errors.OpError as error:
        raise TrainingError(f"TensorFlow failed while {what}: {_reason(error)}") from error


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Raise `OSError` where TensorFlow cannot write a file in the block, as Python does."""
    try:
        yield
    except tf.errors.OpError as error:
        raise OSError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """What went wrong, in one line; of a Python error in the pipeline, its own message."""
    text = re.sub(r"\{\{function_node .*?\}\}", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()] or [type(error).__name__]
    own = [line for line in lines if line.startswith("branchy.errors.")]
    return (own or lines)[0][:300]
