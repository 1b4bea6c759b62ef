"""How the tensors of a network follow its widths: index maps, importance of channels, gathering and dividing."""

from .gather import Policy, gathered
from .importance import Importance, channel_scores, remembered_scores
from .sizes import ordered_sizes
from .terms import axis_mask, gather_index, owners

__all__ = [
    "Importance",
    "Policy",
    "axis_mask",
    "channel_scores",
    "gather_index",
    "gathered",
    "ordered_sizes",
    "owners",
    "remembered_scores",
]
