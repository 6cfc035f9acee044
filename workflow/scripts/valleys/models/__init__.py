"""Networks that a config names, their losses, solutions and checkpoints; training them is elsewhere."""

from typing import TYPE_CHECKING

from valleys.lazy import names_of

if TYPE_CHECKING:
    from valleys.models.builder import build
    from valleys.models.layers import classifier_name, has_batch_norm, init_norm_weights, norm_parameters
    from valleys.models.options import ACTIVATIONS, ARCHS, NORM_INITS, NORMS, validate_spec

__getattr__, __dir__, __all__ = names_of(
    __name__,
    {
        "builder": ("build",),
        "layers": ("classifier_name", "has_batch_norm", "init_norm_weights", "norm_parameters"),
        "options": ("ACTIVATIONS", "ARCHS", "NORMS", "NORM_INITS", "validate_spec"),
    },
)
