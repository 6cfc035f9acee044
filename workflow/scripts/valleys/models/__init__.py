"""Networks that a config names, their losses, solutions and checkpoints; training them is elsewhere."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.models.builder import build as build
    from valleys.models.layers import classifier_name as classifier_name
    from valleys.models.layers import has_batch_norm as has_batch_norm
    from valleys.models.layers import init_norm_weights as init_norm_weights
    from valleys.models.layers import norm_parameters as norm_parameters
    from valleys.models.options import ACTIVATIONS as ACTIVATIONS
    from valleys.models.options import ARCHS as ARCHS
    from valleys.models.options import NORM_INITS as NORM_INITS
    from valleys.models.options import NORMS as NORMS
    from valleys.models.options import validate_spec as validate_spec

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "builder": ("build",),
        "layers": ("classifier_name", "has_batch_norm", "init_norm_weights", "norm_parameters"),
        "options": ("ACTIVATIONS", "ARCHS", "NORMS", "NORM_INITS", "validate_spec"),
    },
)
