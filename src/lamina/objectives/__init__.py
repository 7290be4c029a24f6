"""What a model is trained to do: a loss, and a way of sampling, for each objective."""
