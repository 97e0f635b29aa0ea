"""What a rule from scores to masks looks like."""


class Mask:
    """Base class: a pure function from scores to zeros and ones."""

    def __call__(self, scores, alive, places=None):
        """Returns the masks of weights.

        Args:
            scores: List of float32 tensors, one for each prunable weight.
            alive: List of bool tensors of the same shapes; `False` where a
                weight is frozen, which the caller masks in any case.
            places: Integer scalar, how many weights may be kept at present;
                0 or `None`: as the rule itself says.

        Returns:
            List of float32 tensors of zeros and ones, with a gradient to the
            scores.
        """
        raise NotImplementedError

    @classmethod
    def from_config(cls, config):
        return cls(**config)
