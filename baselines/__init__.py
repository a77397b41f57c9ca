"""Published methods to compare with, as Stable-Baselines3 algorithms."""

from difftori_gym.baselines.bc import BC
from difftori_gym.baselines.bc_rnn import BCRNN
from difftori_gym.baselines.diffusion_policy import DiffusionPolicy
from difftori_gym.baselines.drqv2 import DrQv2
from difftori_gym.baselines.flow_matching import FlowMatching
from difftori_gym.baselines.ibc import IBC
from difftori_gym.baselines.mip import MIP
from difftori_gym.baselines.residual import Residual
from difftori_gym.baselines.tdmpc import TDMPC
from difftori_gym.baselines.tdmpc2 import TDMPC2

__all__ = ["BC", "BCRNN", "IBC", "MIP", "TDMPC", "TDMPC2", "DiffusionPolicy", "DrQv2", "FlowMatching", "Residual"]
