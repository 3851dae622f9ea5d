"""The SAM door: order, batching, memory, scores, what may be loaded and what is refused."""

import json

import numpy as np
import pytest
import torch
from fixtures.small_sam import CONFIG, photo, points, write

from ppt import rle
from ppt.backbones import weights
from ppt.backbones.sam import build_embedded_sam, load_sam, stability
from ppt.backbones.weights import WeightsError
from ppt.types import PromptableModel


@pytest.fixture
def path(tmp_path):
    return write(tmp_path)


@pytest.fixture
def sam(path):
    return load_sam("embedded", path, "cpu")


def test_it_is_a_promptable_model(sam):
    assert len(sam.weights_sha256) == 64
    assert isinstance(sam, PromptableModel)


@pytest.mark.parametrize("size", [(50, 80), (64, 64), (1, 1), (1, 700), (700, 1)])
def test_candidates_have_the_images_size_and_finite_scores(sam, size):
    [candidates] = sam.predict(sam.embed(photo(*size)), [points((0, 0))])
    assert [(mask.height, mask.width) for mask in candidates.rles] == [size] * 3
    assert candidates.predicted_iou.dtype == candidates.stability.dtype == np.float32
    assert candidates.predicted_iou.shape == candidates.stability.shape == (3,)
    assert ((candidates.stability >= 0) & (candidates.stability <= 1)).all()


def test_answers_come_in_the_order_of_the_questions(sam):
    embedding = sam.embed(photo(40, 60))
    prompts = [points((5, 5), (9, 9)), points((50, 30)), points((1, 1), (2, 2), (3, 3)), points((20, 20))]
    together = sam.predict(embedding, prompts)
    for prompt, candidates in zip(prompts, together, strict=True):
        [alone] = sam.predict(embedding, [prompt])
        assert alone.rles == candidates.rles
        np.testing.assert_allclose(alone.predicted_iou, candidates.predicted_iou, atol=1e-5)


def test_no_question_no_answer_and_no_point_no_candidate(sam):
    embedding = sam.embed(photo(40, 60))
    assert sam.predict(embedding, []) == []
    empty, full = sam.predict(embedding, [points(), points((5, 5))])
    assert empty.rles == ()
    assert empty.predicted_iou.shape == (0,)
    assert len(full.rles) == 3


def test_a_compiled_encoder_draws_the_same(path, sam, monkeypatch):
    compiled = load_sam("embedded", path, "cpu", compiled=True)
    with torch.compiler.set_stance("force_eager"):  # what torch makes of it is not ours to test
        found = compiled.predict(compiled.embed(photo(40, 60)), [points((5, 5))])
    assert found[0].rles == sam.predict(sam.embed(photo(40, 60)), [points((5, 5))])[0].rles
    assert compiled.network.image_encoder._compiled_call_impl is not None
    assert sam.network.image_encoder._compiled_call_impl is None


def count_decoder_calls(sam, monkeypatch, capacity=10**6):
    """Batch sizes of the decoder calls; a call above `capacity` runs out of memory."""
    sizes, decode = [], sam._model.mask_decoder.forward

    def counted(**inputs):
        sizes.append(len(inputs["sparse_prompt_embeddings"]))
        if sizes[-1] > capacity:
            raise torch.OutOfMemoryError("simulated")
        return decode(**inputs)

    monkeypatch.setattr(sam._model.mask_decoder, "forward", counted)
    return sizes


def test_sets_of_one_length_share_a_call_up_to_the_batch(path, monkeypatch):
    sam = load_sam("embedded", path, "cpu", prompt_batch=4)
    embedding = sam.embed(photo(40, 60))
    sizes = count_decoder_calls(sam, monkeypatch)
    sam.predict(embedding, [points((1, 1)), points((1, 1), (2, 2))] * 5)
    assert sizes == [4, 1, 4, 1]


def test_the_image_is_encoded_once(sam, monkeypatch):
    calls, encode = [], sam._model.image_encoder.forward
    monkeypatch.setattr(sam._model.image_encoder, "forward", lambda x: (calls.append(1), encode(x))[1])
    embedding = sam.embed(photo(40, 60))
    for _ in range(3):
        sam.predict(embedding, [points((1, 1))])
    assert len(calls) == 1


def test_out_of_memory_halves_the_batch_and_changes_no_mask(sam, monkeypatch):
    embedding = sam.embed(photo(40, 60))
    prompts = [points((3 * i, 2 * i)) for i in range(8)]
    expected = sam.predict(embedding, prompts)
    sizes = count_decoder_calls(sam, monkeypatch, capacity=2)
    found = sam.predict(embedding, prompts)
    assert sizes == [8, 4, 2, 2, 2, 2]
    assert [one.rles for one in found] == [one.rles for one in expected]
    monkeypatch.undo()
    sizes = count_decoder_calls(sam, monkeypatch)
    sam.predict(embedding, prompts)
    assert sizes == [8], "the batch is whole again"


def test_out_of_memory_for_one_point_set_is_told(sam, monkeypatch):
    embedding = sam.embed(photo(40, 60))
    sizes = count_decoder_calls(sam, monkeypatch, capacity=0)
    with pytest.raises(MemoryError, match="sam: drawing masks: simulated"):
        sam.predict(embedding, [points((3 * i, 2 * i)) for i in range(4)])
    assert sizes == [4, 2, 1]


def test_logits_that_are_not_finite_are_an_error(sam, monkeypatch):
    embedding = sam.embed(photo(40, 60))
    decode = sam._model.mask_decoder.forward
    monkeypatch.setattr(
        sam._model.mask_decoder,
        "forward",
        lambda **inputs: (decode(**inputs)[0] * float("nan"), torch.zeros(1, 3)),
    )
    with pytest.raises(FloatingPointError, match=r"point set 0.*40 x 60"):
        sam.predict(embedding, [points((1, 1))])


def test_stability_by_hand():
    """Ten pixels: 4 above +1, 8 above -1; then a mask that is empty even at -1; then a certain one."""
    logits = torch.tensor([[[2.0] * 4 + [0.5] * 2 + [-0.5] * 2 + [-3.0] * 2], [[-5.0] * 10], [[7.0] * 10]])
    np.testing.assert_allclose(stability(logits, 0.0).numpy(), [0.5, 0.0, 1.0])


def test_stability_counts_wide_masks():
    assert float(stability(torch.full((1, 1, 40000), 5.0), 0.0)) == 1.0


def test_masks_are_logits_above_the_threshold(sam):
    embedding = sam.embed(photo(40, 60))
    prompts = [points((10, 10))]
    [(_, logits, _)] = sam.logits(embedding, prompts)
    [candidates] = sam.predict(embedding, prompts)
    for mask, values in zip(candidates.rles, logits, strict=True):
        assert mask == rle.encode(values.numpy() > 0)


def test_nothing_trains(sam):
    assert not any(value.requires_grad for value in sam._model.parameters())
    assert not any(module.training for module in sam._model.modules())
    assert {value.dtype for value in sam._model.parameters()} == {torch.float32}


def test_fingerprint_knows_the_weights(tmp_path):
    first, again = (load_sam("embedded", write(tmp_path), "cpu") for _ in range(2))
    other = load_sam("embedded", write(tmp_path, seed=1, stem="other"), "cpu")
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_loading_leaves_the_global_generator_alone(path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    load_sam("embedded", path, "cpu")
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_missing_and_unfitting_weights_are_errors(path, tmp_path, monkeypatch):
    monkeypatch.delenv("PPT_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"sam_vit_b_01ec64\.pth.*ec2df627.*`ppt weights fetch vit_b`"):
        load_sam("vit_b", None, "cpu")
    with pytest.raises(WeightsError, match=r"absent\.pth"):
        load_sam("vit_h", tmp_path / "absent.pth", "cpu")
    with pytest.raises(WeightsError, match="vit_x"):
        load_sam("vit_x", path, "cpu")
    decoder = CONFIG["mask_decoder"]
    deeper = {**decoder, "transformer": {**decoder["transformer"], "depth": 2}}
    changed = {**CONFIG, "mask_decoder": deeper}
    path.with_suffix(".json").write_text(json.dumps(changed))
    with pytest.raises(WeightsError, match=r"mask_decoder\.transformer\.layers\.1\.\S+ is missing"):
        load_sam("embedded", path, "cpu")


@pytest.mark.parametrize("section", ["image_encoder", "mask_decoder", "pixel_std"])
def test_incomplete_architectures_are_refused(section):
    with pytest.raises(WeightsError, match=section):
        build_embedded_sam({key: value for key, value in CONFIG.items() if key != section})


def test_unknown_keys_in_the_architecture_are_refused():
    with pytest.raises(WeightsError, match="colour"):
        build_embedded_sam({**CONFIG, "image_encoder": {**CONFIG["image_encoder"], "colour": 1}})


def test_the_batch_must_be_positive(path):
    with pytest.raises(ValueError, match="got 0"):
        load_sam("embedded", path, "cpu", prompt_batch=0)


@pytest.mark.skipif(
    not (weights.SHIPPED / "weights.json").exists(), reason="no embedded weights in this checkout"
)
def test_the_shipped_sam_loads_and_answers():
    sam = load_sam("embedded", None, "cpu")
    [candidates] = sam.predict(sam.embed(photo(90, 120)), [points((60, 45))])
    assert len(candidates.rles) == 3
