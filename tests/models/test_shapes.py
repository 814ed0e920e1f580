import pytest

from desta_jax.models.shapes import WhisperShape, tap_layers_for


@pytest.mark.parametrize(
    ("layers", "taps"), [(4, (0, 1, 2, 3)), (12, (2, 5, 8, 11)), (24, (5, 11, 17, 23)), (32, (7, 15, 23, 31))]
)
def test_the_references_taps_by_encoder(layers, taps):
    assert tap_layers_for(layers) == taps


def test_a_tap_beyond_the_encoder_is_an_error_that_names_the_key():
    with pytest.raises(ValueError, match=r"adapter\.tap_layers: 4 is beyond .* 0 to 3"):
        tap_layers_for(4, (0, 4))


def test_an_encoder_the_reference_does_not_know_needs_taps():
    with pytest.raises(ValueError, match=r"adapter\.tap_layers.*set them"):
        tap_layers_for(5)
    assert tap_layers_for(5, (1, 4)) == (1, 4)


def test_another_encoder_is_an_error():
    with pytest.raises(ValueError, match="wav2vec2"):
        WhisperShape.from_hf({"model_type": "wav2vec2"})
