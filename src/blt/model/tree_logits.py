"""Logits after every row of a prefix tree: what texts share is read once by every layer."""

from __future__ import annotations

from torch import Tensor

from blt.model.blt import ByteLatentTransformer
from blt.model.prefix_tree import PatchTree, PrefixTree
from blt.model.transformer import CausalTransformer, entropy
from blt.patching.deciding import decide_by


def transformer_tree_logits(model: CausalTransformer, tree: PrefixTree) -> Tensor:
    """Logits of a transformer without patches  # [N, V]."""
    branches, stack = tree.branches, model.transformer
    caches = [branches.attention(stack.window)] * stack.depth
    back = None if model.tables is None else tree.back(model.tables)
    return model(tree.ids, branches.spans, caches, back=back)  # type: ignore[no-any-return]


def blt_tree_logits(model: ByteLatentTransformer, tree: PrefixTree) -> Tensor:
    """Logits of a BLT, whose patches are those of each document by itself  # [N, 260]."""
    encoder, decoder = model.encoder, model.decoder
    spans, local = tree.branches.spans, tree.branches.attention(model.config.sliding_window)
    x = encoder.transformer(
        encoder.embedding.read(tree.ids, tree.back(encoder.embedding)),
        spans,
        [local] * encoder.transformer.depth,
    )
    cut = _patch_tree(model, tree)
    count, stack = cut.branches.offsets[-1], model.global_transformer.transformer
    patches = encoder.patches(x[cut.rows], cut.patch_ids, count)
    caches = [cut.branches.attention(None)] * stack.depth
    seen = decoder.keys_values(model.global_transformer(patches, cut.branches.spans, caches))
    return decoder.logits(x, seen, cut.seen, spans, [local] * decoder.transformer.depth)


def _patch_tree(model: ByteLatentTransformer, tree: PrefixTree) -> PatchTree:
    rule, entropies = model.patcher.rule, None
    if rule.config.needs_entropies:
        assert model.entropy_model is not None
        entropies = entropy(transformer_tree_logits(model.entropy_model, tree)).cpu()
    ids = tree.ids.cpu()

    def decisions(rows: Tensor) -> Tensor:
        return decide_by(rule, ids[rows], None if entropies is None else entropies[rows])

    return PatchTree.of(tree, decisions)
