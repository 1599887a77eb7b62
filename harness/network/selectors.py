"""Selectors: short names for groups of parameters, as stages write them; and the modes that follow from them."""

from fnmatch import fnmatchcase

from torch import nn

from imbcil.harness.base.errors import ContractViolation
from imbcil.harness.network.network import Network


def select(net: Network, selectors: tuple[str, ...]) -> dict[str, nn.Parameter]:
    """Parameters by name. Known words: `all` (everything but calibrators), `backbones`, `backbones.-1`, `trunk`,
    `head`, `head.new`, `head.old`, `aux`, `calibrators.NAME.new`; else a name prefix or a glob over names with
    the word `blocks` left out, such as `calibrators.lws.*.a`. `-x` removes x; `?x` may match nothing.

    Raises ContractViolation for a selector that matches nothing (`head.old` in the first phase may).
    """
    chosen: dict[str, nn.Parameter] = {}
    for selector in selectors:
        removes, optional = selector.startswith("-"), selector.startswith("?")
        word = selector.removeprefix("-").removeprefix("?")
        found = _matching(net, word)
        if not found and not optional and word != "head.old":
            raise ContractViolation(f"The selector {selector!r} matches no parameter of the network.")
        if removes:
            chosen = {name: value for name, value in chosen.items() if name not in found}
        else:
            chosen |= found
    return chosen


def _matching(net: Network, word: str) -> dict[str, nn.Parameter]:
    last = len(net.head.blocks) - 1
    word = word.replace("backbones.-1", f"backbones.{len(net.backbones) - 1}")
    found = {}
    for name, value in net.named_parameters():
        short = name.replace(".blocks.", ".")
        in_old_block = name.startswith("head.blocks.") and not name.startswith(f"head.blocks.{last}.")
        if word == "all":
            hit = not name.startswith("calibrators.")
        elif word == "head.old":
            hit = in_old_block
        elif word == "head.new":
            hit = name.startswith("head.") and not in_old_block
        elif word.endswith(".new"):
            hit = short.startswith(f"{word.removesuffix('.new')}.{last}.")
        else:
            hit = short == word or short.startswith(f"{word}.") or fnmatchcase(short, word)
        if hit:
            found[name] = value
    return found


def set_modes(net: Network, live: tuple[str, ...] = ()) -> None:
    """Training mode, except for modules whose own parameters are all frozen: their BatchNorm statistics rest,
    unless a prefix in `live` names them."""
    net.train()
    for name, module in net.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(value.requires_grad for value in own) and not name.startswith(live or ("\0",)):
            module.training = False
