"""Networks: encoders, latent model, CVAE and U-Net. Feature extractors subclass Stable-Baselines3's."""

from difftori_gym.models.combined_encoder import CombinedEncoder, StateEncoder
from difftori_gym.models.cvae import ChunkScore, GaussianPosterior, LatentScore
from difftori_gym.models.image_encoder import ImageEncoder
from difftori_gym.models.latent_model import (
    EpisodicModel,
    LatentEncoder,
    LatentModel,
    latent_return,
    rollout_prior,
    termination_loss,
)
from difftori_gym.models.latent_objective import LatentObjective
from difftori_gym.models.mlp import EnsembleCritic, mlp
from difftori_gym.models.observation_kind import ObservationKind, observation_kind
from difftori_gym.models.observation_norm import ObservationNorm
from difftori_gym.models.point_encoder import PointNetEncoder
from difftori_gym.models.random_shift import default_shift, random_shift, shifted_images
from difftori_gym.models.score_objective import ChunkObjective, LatentScoreObjective
from difftori_gym.models.unet1d import ConditionalUnet1D

__all__ = [
    "ChunkObjective",
    "ChunkScore",
    "CombinedEncoder",
    "ConditionalUnet1D",
    "EnsembleCritic",
    "EpisodicModel",
    "GaussianPosterior",
    "ImageEncoder",
    "LatentEncoder",
    "LatentModel",
    "LatentObjective",
    "LatentScore",
    "LatentScoreObjective",
    "ObservationKind",
    "ObservationNorm",
    "PointNetEncoder",
    "StateEncoder",
    "default_shift",
    "latent_return",
    "mlp",
    "observation_kind",
    "random_shift",
    "rollout_prior",
    "shifted_images",
    "termination_loss",
]
