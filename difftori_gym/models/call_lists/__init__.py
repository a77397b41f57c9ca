"""
Values and gradients of what small networks imagine, as lists of calls.

A planner asks for the gradient of its objective in the actions, over and over, for one observation at a time. There
autograd spends most of its time on recording and on gradients nobody asked for, and what is left is the time to call
the operations. So forward and backward pass become lists of calls, made once, on memory that stays; to evaluate is to
go through them. These are first derivatives, without autograd; what is to be differentiated again is a graph.
"""

from difftori_gym.models.call_lists.objective import ScanObjective
from difftori_gym.models.call_lists.scan import Modules, Parts

__all__ = ["Modules", "Parts", "ScanObjective"]
