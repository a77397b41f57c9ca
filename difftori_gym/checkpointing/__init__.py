"""Stop a run and continue it later, as if it had never stopped."""

from difftori_gym.checkpointing.callback import ResumeCallback
from difftori_gym.checkpointing.checkpoint import (
    CheckpointRecord,
    DamagedCheckpointError,
    Restored,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from difftori_gym.checkpointing.signals import TrainingInterrupted

__all__ = [
    "CheckpointRecord",
    "DamagedCheckpointError",
    "Restored",
    "ResumeCallback",
    "TrainingInterrupted",
    "list_checkpoints",
    "load_checkpoint",
    "newest_checkpoint",
    "read_checkpoint",
    "save_checkpoint",
]
