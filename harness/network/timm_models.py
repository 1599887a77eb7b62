"""timm's models as backbones: `timm:NAME`, and `tresnet_m` by its own name. timm is imported only when one is built."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from imbcil.harness.base.config import Frozen
from imbcil.harness.base.errors import BadInput, did_you_mean
from imbcil.harness.network.adapters import adapt

PREFIX = "timm:"
ALIASES = ("tresnet_m",)
INSTALL = 'pip install "imbcil-bench[timm]"'


class TimmOptions(Frozen):
    """`size`: side in pixels that a transformer's pictures are brought to (None: the model's own); `lora_rank`: of
    adapters on queries and values, all else resting (0: none, everything is trained). The other four are what learners
    ask of residual networks; models of timm end as they were published."""

    size: Annotated[int, Field(ge=4, le=1024)] | None = None
    lora_rank: Annotated[int, Field(ge=0)] = 0
    last_relu: bool = True
    post_add_relu: bool = True
    zero_init: bool = False
    split_last: bool = False


def is_timm(kind: str) -> bool:
    """Whether a backbone of this name comes from timm."""
    return kind in ALIASES or kind.startswith(PREFIX)


def timm_name(kind: str) -> str:
    """timm's own name of a backbone."""
    return kind.removeprefix(PREFIX)


def load_timm() -> Any:
    """The module timm. Raises BadInput with the command that installs it."""
    try:
        import timm
    except ImportError:
        raise BadInput(f"This backbone comes from timm, which is not installed; run: {INSTALL}") from None
    return timm


class TimmBackbone(nn.Module):
    """A backbone around a model of timm without its head, under the names of its public weights in `model`.

    images -> {"maps": the levels that timm gives, [B, C, h, w], "features": what the head would get, [B, dim] float32}.
    """

    def __init__(self, kind: str, options: TimmOptions) -> None:
        super().__init__()
        self.opts = options.model_dump()
        self.model = _create(timm_name(kind), options.size)
        self.dim = int(self.model.num_features)
        self.side = options.size or _own_side(self.model)
        if not hasattr(self.model, "forward_intermediates"):
            raise BadInput(
                f"backbone.name = {kind}: this model of timm does not give its maps; choose another."
            )
        if options.lora_rank:
            adapt(self.model, options.lora_rank, kind)

    def forward(self, images: Tensor) -> dict[str, Any]:
        if self.side is not None and tuple(images.shape[2:]) != (self.side, self.side):
            images = functional.interpolate(
                images, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
            )
        last, maps = self.model.forward_intermediates(images)
        features = self.model.forward_head(last, pre_logits=True)
        return {"maps": list(maps)[-4:], "features": features.float()}


def _create(name: str, size: int | None) -> Any:
    timm = load_timm()
    if not timm.is_model(name):
        raise BadInput(f"timm has no model called {name!r}; {did_you_mean(name, timm.list_models())[:200]}.")
    options = {"img_size": size} if size is not None else {}
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **options)
    except (TypeError, ValueError, AssertionError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"backbone.name = timm:{name}: timm cannot build it with {options}: {reason}."
        ) from None


def _own_side(model: Any) -> int | None:
    """The one side in pixels that a transformer takes; None for a model that takes any."""
    own = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return int(own[0]) if own else None


def tresnet_names(tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """TResNet's weights as its authors released them, under timm's names (and with plain batch norms)."""
    load_timm()
    from timm.models.tresnet import checkpoint_filter_fn

    renamed: Mapping[str, Tensor] = checkpoint_filter_fn(dict(tensors), None)
    return renamed


def timm_statistics(kind: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of the pictures that a model's public weights were trained on."""
    config = load_timm().get_pretrained_cfg(timm_name(kind))
    return tuple(config.mean), tuple(config.std)
